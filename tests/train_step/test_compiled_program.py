"""What the compiler makes of the training step: sharding mistakes cost time and change no number.

Read from a program for eight devices, mesh (2, 4, 1) or (1, 4, 2), that is compiled and never run.
"""

import functools
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

from switch_jax.config import MeshConfig, ModelConfig
from switch_jax.config.execution import REMAT_POLICIES
from switch_jax.model.flops import parameter_count
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.planning.hlo import COLLECTIVES, arrays
from switch_jax.train_step.lowering import lower_train_step
from switch_jax.train_step.state import abstract_state
from tests.trainer.helpers import tiny_config, tiny_model

# D is not 24, the rows of an expert: the shapes in a program tell what an array is.
N, E, D, F, WAYS = 3, 8, 28, 40, 4
# All layers of a kernel, which none but a scan needs at once.
STACKS = f"[{N},{D},16]", f"[{N},{E // WAYS},{D},{F}]"


def collectives(hlo: str) -> list[tuple[str, list[tuple[int, ...]]]]:
    """The opcode of each in a compiled text, and the shapes of its results.

    One in the body of a loop counts once.
    """
    return [
        (opcode, [sizes for _, sizes in arrays(result)])
        for result, opcode in re.findall(rf" = (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\(", hlo)
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
    policy: str,
    scan_layers: bool = True,
    experts: int = E,
    fully_sharded: bool = False,
    model_ways: int = 1,
) -> Program:
    """The training step of a model of Switch layers, in bfloat16: N in a stack.

    Where they are not scanned, each stands in the text; so the decoder has one. Then, and with
    fully sharded weights, the gradients of two microbatches are summed.
    """
    return _compiled(policy, scan_layers, experts, fully_sharded, model_ways)


def _model(policy: str, scan_layers: bool, experts: int) -> ModelConfig:
    return tiny_model(
        num_experts=experts, embed_dim=D, mlp_dim=F, sparse_step=1, group_size=16,
        activation_dtype="bfloat16", num_encoder_layers=N,
        num_decoder_layers=N if scan_layers else 1, scan_layers=scan_layers, remat_policy=policy,
    )  # fmt: skip


@functools.cache
def _compiled(
    policy: str, scan_layers: bool, experts: int, fully_sharded: bool, model_ways: int
) -> Program:
    number = 2 if fully_sharded or not scan_layers else 1
    layout = MeshConfig(2 // model_ways, WAYS, model_ways, fully_sharded_weights=fully_sharded)
    model = _model(policy, scan_layers, experts)
    config = tiny_config(model, 16 * number, num_microbatches=number, mesh=layout)
    mesh = make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        lowered = lower_train_step(config, mesh, abstract_state(config, mesh))
        compiled = lowered.compile()
    memory = compiled.memory_analysis()
    hlo = compiled.as_text()
    return Program(
        lowered.as_text(), hlo, memory.argument_size_in_bytes, memory.temp_size_in_bytes,
        len(re.findall(r" dot\(", hlo)),
    )  # fmt: skip


@pytest.mark.parametrize(("scan_layers", "layers"), [(True, 1 + 1), (False, N + 1)])
@pytest.mark.parametrize("policy", ["none", "full"])
def test_two_all_to_alls_a_layer_forward_and_two_backward(policy, scan_layers, layers):
    """Of scanned layers, each of the 4 stands once in the text for each stack."""
    found = [opcode for opcode, _ in collectives(_step(policy, scan_layers).hlo)]
    assert found.count("all-to-all") == (2 + 2) * layers


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
    results = [(op, shape) for op, shapes in collectives(_step(policy).hlo) for shape in shapes]
    assert [(op, shape) for op, shape in results if {E, D, F} <= set(shape)] == []
    for kernel in ((E // WAYS, D, F), (E // WAYS, F, D)):
        reduced = [op for op, shape in results if shape[-3:] == kernel]
        assert reduced == ["all-reduce"] * 2, kernel  # encoder and decoder


def test_all_to_alls_carry_each_device_s_part_of_the_width_along_model():
    """With `model` = 2 a device has twice the rows, and half of their width: it sends as much."""
    sizes = {}
    for ways in (1, 2):
        text = _step("full", model_ways=ways).stablehlo
        types = re.findall(r'"stablehlo\.all_to_all".* -> tensor<([\dx]*)xbf16>', text)
        sizes[ways] = [tuple(map(int, dims.split("x"))) for dims in types]
    assert {s[-1] for s in sizes[1]} == {D} and {s[-1] for s in sizes[2]} == {D // 2}
    assert sorted(map(math.prod, sizes[1])) == sorted(map(math.prod, sizes[2]))


def test_activations_are_kept_in_parts_of_the_width_along_model():
    """So are all that a scan saves for the backward pass, the exchanged rows among them."""
    saved = [s for _, s in arrays(_step("full", model_ways=2).hlo) if s[:1] == (N,) and len(s) > 3]
    rows = {sizes for sizes in saved if sizes[1:2] == (WAYS,)}  # and no kernel of experts
    assert {sizes[-1] for sizes in rows} == {D // 2, E}  # and all logits
    assert {sizes[2:] for sizes in rows} >= {(16, D // 2), (8, D // 2)}  # each layer's input


def test_along_model_only_the_inputs_of_products_are_gathered():
    found = collectives(_step("full", model_ways=2).hlo)
    gathered = {s for op, shapes in found if op == "all-gather" for s in shapes if len(s) > 2}
    # Activations, and the rows of the experts, of encoder and decoder.
    assert gathered == {(WAYS, 16, D), (WAYS, 8, D), (2, 48, D), (2, 24, D)}


def test_the_sum_of_the_logits_over_model_is_not_computed_again():
    """Once in the text for each stack: in the forward pass."""
    found = [s for op, its in collectives(_step("full", model_ways=2).hlo) for s in its]
    assert found.count((WAYS, 16, E)) == found.count((WAYS, 8, E)) == 1


def test_each_policy_takes_less_memory_than_the_one_before():
    memory = [_step(policy).temporaries for policy in REMAT_POLICIES]
    assert memory[0] > memory[1] > memory[2]


# An attention has 6 products, of which `minimal` repeats scores and mixture alone. A dense layer
# has 2 more, and its last one is needed by no gradient; a Switch layer has 3, and what the last one
# gives is saved, since it was exchanged. A decoder's layer has two attentions.
@pytest.mark.parametrize(
    ("policy", "experts", "scan_layers", "encoder", "decoder"),
    [
        ("minimal", E, True, 2 + 2, 2 * 2 + 2),
        ("full", E, True, 6 + 2, 2 * 6 + 2),
        ("full", E, False, 6 + 2, 2 * 6 + 2),
        pytest.param("full", 0, True, 6 + 1, 2 * 6 + 1, marks=pytest.mark.slow),
    ],
)
def test_rematerialisation_repeats_the_products_that_it_does_not_save(
    policy, experts, scan_layers, encoder, decoder
):
    """Of scanned layers, each product stands once in the text for each stack."""
    before, after = (_step(p, scan_layers, experts).products for p in ("none", policy))
    if scan_layers:
        assert after - before == encoder + decoder
    else:
        # Outside of a loop a CPU's compiler may still find some that are alike: keys and values of
        # the encoder's output, and the first product of the experts. A TPU's does not, see
        # test_compiled_for_tpu.py.
        least = N * (encoder - 1) + decoder - 3
        assert least <= after - before <= N * encoder + decoder


@pytest.mark.parametrize("policy", [pytest.param("none", marks=pytest.mark.slow), "minimal"])
def test_fully_sharded_state_takes_its_share_of_the_memory(policy):
    """Matrices over all 8 devices; without, the experts' own over 4 and the others over none.

    D rows divide by 4 and not by 8: queries, keys, values and routers, whose few columns stay
    together, lie over 4.
    """
    program, whole = _step(policy, fully_sharded=True), _step(policy)
    state = program.arguments
    assert whole.arguments > 2 * state
    assert whole.arguments + whole.temporaries > program.arguments + program.temporaries
    of_d_rows = N * (3 * 3 * D * 16 + 2 * D * E)  # three attentions, and a router in each stack
    matrices = (parameter_count(_model(policy, True, E)) + of_d_rows) * 4 // 8
    # Too small for factored second moments: those are as large as the parameters. Then, the batch.
    assert 2 * matrices < state < 2.2 * matrices


def test_fully_sharded_weights_are_gathered_layer_by_layer():
    """Nothing that a collective brings has the axis of all layers."""
    found = collectives(_step("minimal", fully_sharded=True).hlo)
    gathered = [s for opcode, shapes in found if opcode == "all-gather" for s in shapes]
    for kernel in ((D, 16), (16, D), (E // WAYS, D, F), (E // WAYS, F, D)):
        assert kernel in gathered, kernel
    assert [s for _, shapes in found for s in shapes if s[:1] == (N,) and len(s) > 2] == []
    assert [opcode for opcode, _ in found].count("all-to-all") == 2 * (2 + 2)


@pytest.mark.parametrize(
    ("policy", "scan_layers", "fully_sharded"),
    [("minimal", True, True), ("none", False, False), ("full", False, False)],
    ids=["fully sharded", "not scanned", "not scanned but computed again"],
)
def test_no_stack_of_all_layers_is_made(policy, scan_layers, fully_sharded):
    """Neither of fully sharded weights, nor on a CPU of layers that are not scanned.

    Nor of their gradients, summed over microbatches.
    """
    program = _step(policy, scan_layers, fully_sharded=fully_sharded).hlo
    for stack in STACKS:
        assert stack in _step("minimal").hlo
        assert stack not in program


LOWERED_AND_COMPILED = """
import jax
from switch_jax.config import MeshConfig
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.train_step.lowering import lower_train_step
from switch_jax.train_step.state import abstract_state
from tests.trainer.helpers import tiny_config, tiny_model

layout = MeshConfig(2, 2, 2, fully_sharded_weights=True)
config = tiny_config(tiny_model(activation_dtype="bfloat16"), 16, mesh=layout)
mesh = make_mesh(config.mesh)
with jax.set_mesh(mesh):
    lower_train_step(config, mesh, abstract_state(config, mesh)).compile()
"""


def test_a_tied_table_is_not_made_whole_on_each_device():
    """Of a table split over all axes the compiler warns where it has no better way.

    In a process of its own: the compiler reads once from what level on it speaks.
    """
    finished = subprocess.run(
        [sys.executable, "-c", LOWERED_AND_COMPILED],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0", "JAX_ENABLE_COMPILATION_CACHE": "false"},
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "rematerialization" not in finished.stderr
