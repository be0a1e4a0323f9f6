"""The training step compiled for TPU chips that are not there: what its devices exchange."""

import functools

import jax
import numpy as np
import pytest

from switch_jax.config import (
    Config,
    DataConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
)
from switch_jax.config.execution import REMAT_POLICIES
from switch_jax.hardware.tpus import parse_slice
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.planning import compiler
from switch_jax.planning.hlo import COLLECTIVES, arrays
from switch_jax.train_step.lowering import lower_train_step
from switch_jax.train_step.state import abstract_state

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("scopes_and_kernels_by_name")]
N, E, D, F, WAYS = 2, 8, 128, 384, 4


@functools.cache
def _compiled(
    policy: str,
    scan_layers: bool,
    experts: int = E,
    optimizer: str = "adafactor",
    model_ways: int = 1,
    fully_sharded_weights: bool = False,
    chips: str = "v5p:2x2x1",
) -> compiler.Program:
    """The step of a model of N layers in each stack, two experts on each of four chips.

    Or more, in parts, where the model axis takes some of the chips.
    """
    pytest.importorskip("libtpu")
    model = ModelConfig(
        num_embeddings=256, embed_dim=D, mlp_dim=F, head_dim=64, num_heads=2, num_encoder_layers=N,
        num_decoder_layers=N, num_experts=experts, sparse_step=1, group_size=256,
        scan_layers=scan_layers, remat_policy=policy,
    )  # fmt: skip
    data = DataConfig("unread", {"inputs": 128, "targets": 32})
    run = RunConfig("unwritten", 1, batch_size=512)
    chosen = OptimizerConfig(optimizer)
    layout = MeshConfig(1, WAYS // model_ways, model_ways, fully_sharded_weights)
    config = Config(run, model, data, layout, chosen)
    mesh = make_mesh(config.mesh, compiler.devices(parse_slice(chips)))
    with jax.set_mesh(mesh):
        step = lower_train_step(config, mesh, abstract_state(config, mesh))
        program = compiler.compile_program(step)
    assert isinstance(program, compiler.Program)
    return program


@pytest.fixture(params=[(p, scan) for p in REMAT_POLICIES for scan in (True, False)])
def collectives(request):
    return _collectives(_compiled(*request.param))


def _collectives(program: compiler.Program) -> list:
    """Of each: (opcode, times in a step, arrays of the result, without contexts)."""
    return [
        (o.opcode, o.count, [array for array in arrays(o.shape) if array != ("u32", ())])
        for o in program.operations
        if o.opcode.removesuffix("-start") in COLLECTIVES
    ]


@pytest.mark.parametrize("scan_layers", [True, False], ids=["scanned", "one by one"])
@pytest.mark.parametrize("experts", [0, E], ids=["dense", "switch"])
def test_each_policy_saves_less_and_computes_more(experts, scan_layers):
    programs = [_compiled(policy, scan_layers, experts) for policy in REMAT_POLICIES]
    memory = [p.temporaries for p in programs]
    assert memory[2] < min(memory[:2]), memory
    # Of dense layers one by one the compiler keeps hardly more than `minimal` would.
    if scan_layers or experts:
        assert memory[1] < memory[0], memory
    none, minimal, full = map(_flops, programs)
    assert none <= minimal < full


@pytest.mark.parametrize("experts", [0, E], ids=["dense", "switch"])
def test_layers_one_by_one_compute_as_much_again_as_scanned_ones(experts):
    scanned, one_by_one = (_flops(_compiled("full", scan, experts)) for scan in (True, False))
    assert one_by_one == scanned


def _flops(program: compiler.Program) -> int:
    return sum(o.flops * o.count for o in program.operations)


def test_two_all_to_alls_a_layer_forward_and_two_backward(collectives):
    split = sum(times for opcode, times, _ in collectives if opcode == "all-to-all-start")
    whole = sum(times for opcode, times, _ in collectives if opcode == "all-to-all")
    # Both stacks have rows enough to exchange an expert's slots in two chunks.
    assert split + whole == 2 * 2 * N * (2 + 2)
    assert split > whole  # the compiler may leave some of them whole


def test_all_to_alls_carry_bfloat16(collectives):
    dtypes = {d for opcode, _, found in collectives if "all-to-all" in opcode for d, _ in found}
    assert dtypes == {"bf16"}


def test_along_model_sums_are_scattered_and_nothing_is_sent_twice():
    found = _collectives(_compiled("full", scan_layers=True, model_ways=2))
    sent = [sizes for opcode, _, its in found if "all-to-all" in opcode for _, sizes in its]
    assert {sizes[-1] for sizes in sent} == {D // 2}
    # A device of the expert axis has 256 rows of 32 tokens or more: no sum of theirs is whole.
    summed = {sizes for opcode, _, its in found if "all-reduce" in opcode for _, sizes in its}
    assert not [sizes for sizes in summed if np.prod(sizes) >= 256 * 32 * D], summed
    scattered = {
        sizes for opcode, _, its in found if opcode == "reduce-scatter" for _, sizes in its
    }
    assert {sizes[-1] for sizes in scattered if len(sizes) > 2} == {D // 2}


def test_on_v5e_split_weights_are_gathered_within_products():
    program = _compiled("none", scan_layers=False, fully_sharded_weights=True, chips="v5e-4")
    found = [opcode for opcode, _, _ in _collectives(program)]
    # The compiler leaves some small ones whole.
    assert found.count("all-gather-start") >= max(20, 4 * found.count("all-gather")), found


@pytest.mark.parametrize("chips", ["v4:2x2x1", "v5p:2x2x1", "v6e-4"])
def test_elsewhere_the_compiler_takes_the_options_of_split_weights(chips):
    """The compiler of these refuses to gather within products."""
    found = _collectives(_compiled("none", False, fully_sharded_weights=True, chips=chips))
    assert [sizes for opcode, _, sizes in found if opcode == "all-gather"]


def test_expert_kernels_stay_where_they_are(collectives):
    sizes = [set(sizes) for _, _, found in collectives for _, sizes in found]
    assert sizes
    assert not [s for s in sizes if {D, F} <= s and s & {E, N * E}]


def test_adamw_writes_means_and_parameters_in_one_pass():
    """Norms are summed where their arrays are made, and no array of updates is written there."""
    program = _compiled("full", scan_layers=True, experts=0, optimizer="adamw")
    written = [
        [sizes for _, sizes in arrays(o.shape) if np.prod(sizes) >= D * D]
        for o in program.operations
        if "optimizer" in o.op_name and ("f32", ()) in arrays(o.shape)
    ]
    passes = [sizes for sizes in written if sizes]
    assert len(passes) > 10
    assert {len(sizes) for sizes in passes} == {3}, passes
