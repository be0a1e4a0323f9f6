"""What the compiler makes of the training step: sharding mistakes cost time and change no number.

Read from a program for eight devices, mesh (2, 4, 1), that is compiled and never run.
"""

import functools
import re
from typing import NamedTuple

import jax
import pytest

from switch_jax.config import MeshConfig
from switch_jax.config.model import REMAT_POLICIES
from switch_jax.model import abstract_parameters
from switch_jax.optim.optimizer import make_optimizer
from switch_jax.partitioning.mesh import batch_sharding, make_mesh
from switch_jax.train_step.state import abstract_state
from switch_jax.train_step.step import make_train_step
from tests.trainer.helpers import random_batch, tiny_config, tiny_model

# D is not 24, the rows of an expert: the shapes in a program tell what an array is.
N, E, D, F, WAYS = 3, 8, 28, 40, 4
UNSCANNED = 2  # layers, where each stands in the text
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


class Program(NamedTuple):
    """The training step before and after compilation, and the bytes that it takes on a device.

    `products`: matrix products in the text.
    """

    stablehlo: str
    hlo: str
    arguments: int
    temporaries: int
    products: int


def _step(
    policy: str = "none",
    scan_layers: bool = True,
    experts: int = E,
    fully_sharded: bool = False,
    num_microbatches: int = 1,
) -> Program:
    """The training step of a model with N or UNSCANNED Switch layers a stack, in bfloat16."""
    return _compiled(policy, scan_layers, experts, fully_sharded, num_microbatches)


@functools.cache
def _compiled(
    policy: str, scan_layers: bool, experts: int, fully_sharded: bool, num_microbatches: int
) -> Program:
    model = tiny_model(
        num_experts=experts,
        embed_dim=D,
        mlp_dim=F,
        sparse_step=1,
        group_size=16,
        activation_dtype="bfloat16",
        num_encoder_layers=N if scan_layers else UNSCANNED,
        num_decoder_layers=N if scan_layers else UNSCANNED,
        scan_layers=scan_layers,
        remat_policy=policy,
    )
    config = tiny_config(
        model,
        num_microbatches=num_microbatches,
        mesh=MeshConfig(2, WAYS, 1, fully_sharded_weights=fully_sharded),
    )
    mesh = make_mesh(config.mesh)
    state = abstract_state(config, mesh)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=batch_sharding(mesh)),
        random_batch(16 * num_microbatches),
    )
    shardings = jax.tree.map(lambda x: x.sharding, state)
    optimizer = make_optimizer(config)
    step = make_train_step(config, optimizer, shardings.parameters)
    with jax.set_mesh(mesh):
        jitted = jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
        lowered = jitted.lower(state, batch)
        compiled = lowered.compile()
    memory = compiled.memory_analysis()
    hlo = compiled.as_text()
    return Program(
        lowered.as_text(), hlo, memory.argument_size_in_bytes, memory.temp_size_in_bytes,
        len(re.findall(r" dot\(", hlo)),
    )  # fmt: skip


@pytest.mark.parametrize(("scan_layers", "times"), [(True, 1), (False, UNSCANNED)])
@pytest.mark.parametrize(
    "policy", ["none", pytest.param("minimal", marks=pytest.mark.slow), "full"]
)
def test_two_all_to_alls_a_layer_forward_and_two_backward(policy, scan_layers, times):
    """Of scanned layers, each of the 4 stands once in the text for each stack."""
    found = [c for c in collectives(_step(policy, scan_layers).hlo) if c.name == "all-to-all"]
    assert len(found) == 2 * (2 + 2) * times


@pytest.mark.parametrize("policy", REMAT_POLICIES)
def test_all_to_alls_carry_bfloat16(policy):
    """Read before compilation: the CPU compiler itself widens bfloat16 collectives to float32."""
    program = _step(policy).stablehlo
    types = re.findall(r'"stablehlo\.all_to_all".* -> tensor<[\dx]*x(\w+)>', program)
    assert set(types) == {"bf16"}
    assert len(types) == 2 * (2 + 2)


@pytest.mark.parametrize("policy", REMAT_POLICIES)
def test_expert_kernels_stay_where_they_are(policy):
    """No device ever holds all experts; gradients are summed over `data` for its own alone."""
    results = [(c.name, s) for c in collectives(_step(policy).hlo) for s in c.shapes]
    whole = [(name, shape) for name, shape in results if {E, D, F} <= set(shape)]
    assert whole == []
    for kernel in ((E // WAYS, D, F), (E // WAYS, F, D)):
        reduced = [name for name, shape in results if shape[-3:] == kernel]
        assert reduced == ["all-reduce"] * 2, kernel  # encoder and decoder


def test_each_policy_takes_less_memory_than_the_one_before():
    memory = [_step(policy).temporaries for policy in REMAT_POLICIES]
    assert memory[0] > memory[1] > memory[2]


# An attention has 6 products, of which `minimal` repeats scores and mixture alone. A dense layer
# has 2 more, and its last one is needed by no gradient; a Switch layer has 3, and what the last one
# gives is saved, since it was exchanged. A decoder's layer has two attentions.
@pytest.mark.parametrize(
    ("experts", "policy", "repeated"),
    [
        (0, "minimal", 3 * 2),
        pytest.param(0, "full", 3 * 6 + 2, marks=pytest.mark.slow),
        (E, "full", 3 * 6 + 2 * 2),
    ],
)
@pytest.mark.parametrize(
    ("scan_layers", "times"), [pytest.param(True, 1, marks=pytest.mark.slow), (False, UNSCANNED)]
)
def test_rematerialisation_repeats_the_products_that_it_does_not_save(
    experts, policy, repeated, scan_layers, times
):
    """Of scanned layers, each product stands once in the text for each stack."""
    before, after = (_step(p, scan_layers, experts).products for p in ("none", policy))
    # Outside of a loop a CPU's compiler may still find some that are alike: keys and values of the
    # encoder's output, and the first product of the experts in each stack. A TPU's does not, see
    # test_compiled_for_tpu.py.
    merged = 0 if scan_layers or policy != "full" else 4 if experts else 2
    assert (repeated - merged) * times <= after - before <= repeated * times


@pytest.mark.parametrize("policy", [pytest.param("none", marks=pytest.mark.slow), "minimal"])
def test_fully_sharded_state_takes_its_share_of_the_memory(policy):
    """Matrices over all 8 devices; without, the experts' own over 4 and the others over none."""
    program, whole = _step(policy, fully_sharded=True), _step(policy)
    state = program.arguments
    assert whole.arguments > 2 * state
    assert whole.arguments + whole.temporaries > program.arguments + program.temporaries
    parameters = abstract_parameters(
        tiny_model(
            num_experts=E, embed_dim=D, mlp_dim=F, sparse_step=1,
            num_encoder_layers=N, num_decoder_layers=N,
        )
    )  # fmt: skip
    matrices = sum(p.size * 4 for p in jax.tree.leaves(parameters)) // 8
    # Too small for factored second moments: those are as large as the parameters. Then, the batch.
    assert 2 * matrices < state < 2.2 * matrices


def test_fully_sharded_weights_are_gathered_layer_by_layer():
    """Nothing that a collective brings has the axis of all layers."""
    found = collectives(_step("minimal", fully_sharded=True).hlo)
    gathered = [s for c in found if c.name == "all-gather" for s in c.shapes]
    for kernel in ((D, 16), (16, D), (E // WAYS, D, F), (E // WAYS, F, D)):
        assert kernel in gathered, kernel
    assert [s for c in found for s in c.shapes if s[:1] == (N,) and len(s) > 2] == []
    assert len([c for c in found if c.name == "all-to-all"]) == 2 * (2 + 2)


def test_a_device_never_has_all_layers_of_a_fully_sharded_kernel():
    """Nor of its gradient, summed over microbatches."""
    program = _step("minimal", fully_sharded=True, num_microbatches=2).hlo
    for kernel in (f"[{N},{D},16]", f"[{N},{E // WAYS},{D},{F}]"):
        assert kernel in _step().hlo
        assert kernel not in program
