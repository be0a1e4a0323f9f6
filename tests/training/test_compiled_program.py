"""What the compiler makes of the training step: sharding mistakes cost time and change no number.

Read from a program for eight devices, mesh (2, 4, 1), that is compiled and never run.
"""

import functools
import re
from typing import NamedTuple

import jax
import pytest

from switch_jax.model import logical_axes
from switch_jax.partitioning.mesh import MeshConfig, batch_sharding, make_mesh
from switch_jax.training.loss import LossConfig
from switch_jax.training.optimizer import OptimizerConfig, make_optimizer
from switch_jax.training.state import abstract_state
from switch_jax.training.step import make_train_step
from tests.training.helpers import random_batch, tiny_model

E, D, F, WAYS = 8, 24, 40, 4
COLLECTIVES = "all-to-all|all-gather|all-reduce|reduce-scatter|collective-permute"


class Collective(NamedTuple):
    """One instruction: its name, and the shape of each array of its result."""

    name: str
    shapes: list[tuple[int, ...]]


def collectives(hlo: str) -> list[Collective]:
    """All collectives in compiled HLO text; one in the body of a loop counts once.

    >>> collectives("%x = (f32[2,3]{1,0}, /*index=1*/f32[]) all-reduce(%a, %b), channel_id=1")
    [Collective(name='all-reduce', shapes=[(2, 3), ()])]
    """

    def shape(sizes: str) -> tuple[int, ...]:
        return tuple(int(size) for size in sizes.split(",") if size)

    return [
        Collective(name, [shape(sizes) for sizes in re.findall(r"\w+\[([\d,]*)\]", result)])
        for result, name in re.findall(rf" = (.*?) ({COLLECTIVES})(?:-start)?\(", hlo)
    ]


@functools.cache
def _step(remat: bool) -> tuple[str, str]:
    """The training step of 2 + 2 Switch layers in bfloat16, as (StableHLO, compiled HLO)."""
    model = tiny_model(
        num_experts=E, d_model=D, d_ff=F, sparse_step=1, group_size=16, dtype="bfloat16",
        remat=remat,
    )  # fmt: skip
    mesh, optimizer = make_mesh(MeshConfig(2, WAYS, 1)), OptimizerConfig()
    state = abstract_state(model, optimizer, mesh)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=batch_sharding(mesh)),
        random_batch(16),
    )
    step = make_train_step(
        model, LossConfig(), make_optimizer(optimizer, logical_axes(model)),
        num_microbatches=1, seed=0,
    )  # fmt: skip
    shardings = jax.tree.map(lambda x: x.sharding, state)
    with jax.set_mesh(mesh):
        jitted = jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
        lowered = jitted.lower(state, batch)
        compiled = lowered.compile()
    return lowered.as_text(), compiled.as_text()


@pytest.mark.parametrize("remat", [False, True], ids=["saved", "remat"])
def test_two_all_to_alls_a_layer_forward_and_two_backward(remat):
    """Each stack's layers are scanned, so each of the 4 stands once in the text for each stack."""
    found = [c for c in collectives(_step(remat)[1]) if c.name == "all-to-all"]
    assert len(found) == 2 * (2 + 2)


@pytest.mark.parametrize("remat", [False, True], ids=["saved", "remat"])
def test_all_to_alls_carry_bfloat16(remat):
    """Read before compilation: the CPU compiler itself widens bfloat16 collectives to float32."""
    types = re.findall(r'"stablehlo\.all_to_all".* -> tensor<[\dx]*x(\w+)>', _step(remat)[0])
    assert set(types) == {"bf16"}
    assert len(types) == 2 * (2 + 2)


@pytest.mark.parametrize("remat", [False, True], ids=["saved", "remat"])
def test_expert_kernels_stay_where_they_are(remat):
    """No device ever holds all experts; gradients are summed over `data` for its own alone."""
    results = [(c.name, s) for c in collectives(_step(remat)[1]) for s in c.shapes]
    whole = [(name, shape) for name, shape in results if {E, D, F} <= set(shape)]
    assert whole == []
    for kernel in ((E // WAYS, D, F), (E // WAYS, F, D)):
        reduced = [name for name, shape in results if shape[-3:] == kernel]
        assert reduced == ["all-reduce"] * 2, kernel  # encoder and decoder
