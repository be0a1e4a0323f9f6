"""Plans from a compiled program, and from the compiler's out-of-memory error."""

import dataclasses

import jax
import numpy as np
import pytest

from switch_jax.config import Config, DataConfig, MeshConfig, ModelConfig, RunConfig
from switch_jax.errors import UserError
from switch_jax.hardware import parse_slice
from switch_jax.planning import plan, step_plan
from switch_jax.planning.compiler import OutOfMemory, Program
from switch_jax.planning.hlo import Operation, operations
from switch_jax.planning.measured import ALL_PARTS, Exchange, Measured, Speeds
from tests.planning.fake_mesh import Device, FakeMesh

# Four devices exchange; the loop runs 12 times; kernel.2 equals kernel.1 except for its name.
TEXT = """\
HloModule jit_step, is_scheduled=true

%body (t: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
  %t = (s32[], bf16[8,128]{1,0}) parameter(0)
  %fusion.1 = bf16[8,128]{1,0} fusion(%a), kind=kLoop, calls=%f, metadata={op_name="jit(step)/while/body/attention/dot_general"}, backend_config={"window_config":{"estimated_cycles":"1000"}}
  %kernel.1 = bf16[8,128]{1,0} custom-call(%a), custom_call_target="tpu_custom_call", metadata={op_name="jit(step)/while/body/dispatch/gather"}
  %kernel.2 = bf16[8,128]{1,0} custom-call(%b), custom_call_target="tpu_custom_call", metadata={op_name="jit(step)/while/body/dispatch/gather"}
  %all-to-all.1 = bf16[4,128]{1,0} all-to-all(%c), replica_groups={{0,1,2,3}}, dimensions={0}, metadata={op_name="jit(step)/while/body/experts/all_to_all"}
  ROOT %tuple = (s32[], bf16[8,128]{1,0}) tuple(%i, %fusion.1)
}

%f (p0: bf16[8,128]) -> bf16[8,128] {
  ROOT %p0 = bf16[8,128]{1,0} parameter(0)
}

%condition (t: (s32[], bf16[8,128])) -> pred[] {
  %constant = s32[]{:T(128)} constant(12)
  ROOT %compare = pred[] compare(%i, %constant), direction=LT
}

ENTRY %main (p: bf16[8,128]) -> bf16[8,128] {
  %p = bf16[8,128]{1,0} parameter(0)
  %while = (s32[], bf16[8,128]{1,0}) while(%tuple.0), condition=%condition, body=%body
  %kernel.3 = bf16[4,128]{1,0} custom-call(%p), custom_call_target="tpu_custom_call", metadata={op_name="jit(step)/dispatch/gather"}
  %all-reduce.1 = f32[1000]{0} all-reduce(%g), replica_groups={{0,1,2,3}}, to_apply=%f
  %copy-start.1 = (bf16[8,128]{1,0}, bf16[8,128]{1,0}, u32[]) copy-start(%p)
  %bound.1 = s32[64]{0} custom-call(%k), custom_call_target="AssumeGatherIndicesInBound"
  %add.1 = f32[1,1]{1,0} add(%x, %y)
  ROOT %copy.1 = bf16[8,128]{1,0} copy(%p), backend_config={"estimated_cycles":"50"}
}
"""  # noqa: E501
SCHEDULED = {"kernel.1": 200, "all-to-all.1": 30, "all-reduce.1": 7000, "copy-start.1": 9, "f": 1}
PROGRAM = Program(
    operations=operations(TEXT),
    scheduled=SCHEDULED,
    arguments=1000,
    outputs=900,
    aliased=800,
    temporaries=500,
    code=60,
    seconds=1.5,
)


@pytest.fixture
def mesh():
    """The chips of v5p:2x2x1, all along the expert axis."""
    devices = np.empty((1, 4, 1), object)
    for i in range(4):
        devices[0, i, 0] = Device((i // 2, i % 2, 0))
    return FakeMesh(devices)


@pytest.fixture
def costs(mesh):
    return plan.costs_of(PROGRAM, mesh, parse_slice("v5p:2x2x1"))


def test_cycles_by_part_include_loop_iterations(costs):
    assert costs.cycles_by_part == {
        "attention": 12 * 1000,
        "dispatch": 12 * (200 + 200),  # equal operations, of which the schedule has one
        "experts": 12 * 30,  # the all-to-all's work in the memory of its device
        "other": 50,
    }
    assert costs.estimated_cycles == 12000 + 4800 + 360 + 50
    assert list(costs.cycles_by_part) == ["attention", "dispatch", "experts", "other"]


def test_the_floor_of_a_part_is_by_products_or_traffic(costs):
    # v5p reads 2765 GB/s at 1.751 GHz: 1579 bytes a cycle. The attention fusion and the kernels
    # have 2 kB results; `%a` and `%b` are not in the text. An all-to-all has 1 kB.
    per_cycle = 2765e9 / (459e12 / 262144)
    assert costs.floor_by_part == {
        "attention": round(12 * 2048 / per_cycle),
        "dispatch": round(24 * 2048 / per_cycle),
        "experts": round(12 * 1024 / per_cycle),
        "other": round(2 * 2048 / per_cycle),  # a copy: read and written
    }


def test_what_was_measured_multiplies_the_time_of_parts_and_exchanges(mesh):
    hardware = parse_slice("v5p:2x2x1")
    exchange = Exchange(50e9, 1e-5, planned_bytes_per_second=100e9)
    other = Exchange(50e9, 1e-5, planned_bytes_per_second=400e9)
    exchanges = {"all-to-all over expert": exchange, "all-reduce over data": other}
    speeds = Speeds(4e14, 2e12, exchanges)
    ratios = {"attention": 2.0, ALL_PARTS: 3.0}
    measured = Measured("doctor.json", "TPU v5p", 4, speeds, ratios, 1.0)
    plain = plan.costs_of(PROGRAM, mesh, hardware)
    found = plan.costs_of(PROGRAM, mesh, hardware, measured)
    clock = hardware.generation.clock
    cycles = 2 * 12000 + 3 * (4800 + 360 + 50)
    assert found.compute_seconds == pytest.approx(cycles / clock)
    assert found.cycles_by_part == plain.cycles_by_part  # they are the compiler's
    for before, after in zip(plain.collectives, found.collectives, strict=True):
        ratio = {"all-to-all": 2, "all-reduce": 5}[
            after.op
        ]  # the latter was not measured: the mean
        assert after.seconds == pytest.approx(ratio * before.seconds)


def test_a_file_of_other_chips_is_refused():
    measured = Measured("doctor.json", "TPU v4", 4, Speeds(1.0, 1.0, {}), {}, 1.0)
    with pytest.raises(UserError, match="doctor.json is of TPU v4, and v5p-8 has chips of v5p"):
        plan.make_plan(None, parse_slice("v5p-8"), measured)


@pytest.mark.parametrize(
    ("flops", "floor"),
    [(0, 2 * 2048 / 1579), (262144 * 17, 17), (262144 * 5000, 50)],  # the copy takes 50 cycles
)
def test_the_floor_of_an_operation_is_the_longer_of_both_and_no_more_than_it_takes(
    mesh, flops, floor
):
    copy = next(o for o in PROGRAM.operations if o.name == "copy.1")
    program = dataclasses.replace(PROGRAM, operations=[dataclasses.replace(copy, flops=flops)])
    costs = plan.costs_of(program, mesh, parse_slice("v5p:2x2x1"))
    assert costs.floor_by_part == {"other": round(floor)}


@pytest.mark.parametrize(
    ("result", "estimate", "counted"),
    [
        ("bf16[12,16,512,768]{3,2,1,0}", 946720, round((12 * 16 * 512 * 768 * 2 + 2) / 1579.1)),
        ("bf16[8,128]{1,0}", 2139, 2100),  # what the smallest operations take
        ("bf16[8,128]{1,0}", 50, 50),
    ],
)
def test_filling_an_array_takes_as_long_as_its_bytes(mesh, result, estimate, counted):
    line = f"  %fill.1 = {result} broadcast(%zero), dimensions={{}}, "
    line += f'backend_config={{"estimated_cycles":"{estimate}"}}'
    zero = "  %zero = bf16[] constant(0)"
    text = f"ENTRY %main () -> {result} {{\n{zero}\n{line}\n}}\n"
    program = dataclasses.replace(PROGRAM, operations=operations(text))
    costs = plan.costs_of(program, mesh, parse_slice("v5p:2x2x1"))
    assert costs.estimated_cycles == pytest.approx(counted, rel=1e-4)


def test_cycles_from_the_schedule_are_a_figure_of_their_own(costs):
    assert costs.scheduled_cycles == 4800 + 360


def test_operations_without_cycles_are_listed_by_opcode(costs):
    # kernel.3 has another shape than the operations in the schedule. Scalars, operations in the
    # background and hints to the compiler take no time of a core.
    assert costs.uncounted == {"custom-call": 1}


def test_an_all_reduce_is_an_exchange_and_not_computation(costs):
    by_op = {c.op: c for c in costs.collectives}
    assert set(by_op) == {"all-to-all", "all-reduce"}
    assert (by_op["all-reduce"].count, by_op["all-reduce"].bytes) == (1, 4000)
    assert (by_op["all-to-all"].count, by_op["all-to-all"].bytes) == (12, 12 * 4 * 128 * 2)
    assert {c.axis for c in costs.collectives} == {"expert"}


def test_the_step_time_model_by_hand(costs):
    # 459 TFLOP/s from 8 units of 128 x 128 with two FLOPs each; links of 100 GB/s in a square.
    # An all-reduce sends 2 x 3/4 of its bytes over two rings in both directions; half of the bytes
    # of an all-to-all cross each of the links of the longest dimension.
    seconds = 17210 / (459e12 / 262144)
    all_reduce = 2 * 4000 * 3 / 4 / 400e9
    all_to_all = 12288 / 2 / 100e9
    assert costs.compute_seconds == pytest.approx(seconds)
    assert costs.collective_seconds == pytest.approx(all_reduce + all_to_all)
    assert costs.step_seconds == pytest.approx(seconds + all_reduce + all_to_all)


def test_flops_of_all_devices_include_loop_iterations(mesh):
    def product(name, flops, count):
        return Operation(name, "fusion", "bf16[8]{0}", "(%x), calls=%f", count, flops, "")

    program = dataclasses.replace(PROGRAM, operations=[product("a", 100, 12), product("b", 7, 1)])
    assert plan.costs_of(program, mesh, parse_slice("v5p:2x2x1")).compiled_flops == 4 * 1207


def test_memory_is_that_of_a_chip_even_if_a_device_is_half_a_chip(mesh):
    costs = plan.costs_of(PROGRAM, mesh, parse_slice("v3:2x2"))
    assert (costs.arguments_bytes, costs.outputs_bytes) == (2000, 200)
    assert costs.temporaries_bytes == 1000


MODEL = ModelConfig(
    num_embeddings=100,
    embed_dim=8,
    mlp_dim=16,
    head_dim=4,
    num_heads=2,
    num_encoder_layers=2,
    num_decoder_layers=2,
    num_experts=4,
    expert_mlp_dim=16,
    sparse_step=2,
    group_size=32,
)
CONFIG = Config(
    RunConfig("none", train_steps=1, batch_size=16),
    MODEL,
    DataConfig("none", {"inputs": 32, "targets": 16}),
    MeshConfig(2, 4, 1),
)
# By hand: the embeddings of tokens and of relative positions (one in each stack), then the norms
# and the two layers of each stack: attention of 4 x 8 x 8, a dense layer, four experts, a router.
ATTENTION, DENSE = 4 * 8 * 8, 2 * 8 * 16
FEED_FORWARDS = DENSE + 4 * DENSE + 8 * 4
ENCODER = 2 * ATTENTION + FEED_FORWARDS + 4 * 8 + 8
DECODER = 4 * ATTENTION + FEED_FORWARDS + 6 * 8 + 8
PARAMETERS = 100 * 8 + 2 * 32 * 2 + ENCODER + DECODER


@pytest.fixture
def compile_to(monkeypatch):
    """Sets the compiler's result; the devices are this machine's virtual CPUs."""

    def set_result(result):
        monkeypatch.setattr(plan, "devices", lambda _: jax.devices())
        monkeypatch.setattr(step_plan, "lower_train_step", lambda *_: None)
        monkeypatch.setattr(plan, "compile_program", lambda _: result)

    return set_result


def test_a_plan_of_a_step_that_fits(compile_to):
    alone = [o for o in PROGRAM.operations if not o.opcode.startswith("all-")]
    compile_to(dataclasses.replace(PROGRAM, operations=alone))
    made = plan.make_plan(CONFIG, parse_slice("v5e-8"))
    assert made.fits
    assert made.mesh == (2, 4, 1)
    assert made.parameters == PARAMETERS
    assert made.parameter_bytes == 4 * PARAMETERS  # float32
    assert made.hbm_bytes == 1000 + 900 - 800 + 500 + 60
    assert made.hbm_limit_bytes == 16 * 2**30
    assert made.tokens == 16 * (32 + 16)
    # A row of 32 inputs, two of 16 targets, 4 experts: 32 / 4 x 1.25 = 10 slots.
    assert [groups[:3] for groups in made.groups.values()] == [(32, 10, 1.25)] * 2
    assert made.as_json()["routing_groups"]["encoder"]["slots"] == 10
    seconds = 16850 / (197e12 / 131072)
    assert made.tokens_per_second == pytest.approx(768 / seconds)
    assert made.as_json()["input_tokens_per_step"] == 16 * 32
    assert made.as_json()["hbm_program_bytes"] == 60
    assert made.days == pytest.approx(CONFIG.run.train_steps * seconds / 86400)
    assert made.paper_days == pytest.approx(576e9 / 512 * seconds / 86400)
    assert made.utilisation == pytest.approx(made.model_flops / 8 / (16850 * 131072))


def test_a_plan_of_a_step_that_does_not_fit(compile_to):
    compile_to(OutOfMemory(20 * 2**30, 15 * 2**30, 2.5, "out of memory"))
    made = plan.make_plan(CONFIG, parse_slice("v3-8"))
    assert not made.fits
    # Two devices a chip.
    assert (made.hbm_bytes, made.hbm_limit_bytes) == (40 * 2**30, 30 * 2**30)
    assert made.tokens_per_second is made.days is made.utilisation is None
    json = made.as_json()
    assert json["fits"] is False
    assert json["estimated_cycles"] is json["collectives"] is json["step_seconds_model"] is None
    assert json["parameters"] == PARAMETERS


def test_a_step_that_lacks_less_memory_than_the_compiler_prints_does_not_fit(compile_to):
    compile_to(OutOfMemory(15 * 2**30, 15 * 2**30, 2.5, "out of memory"))
    assert not plan.make_plan(CONFIG, parse_slice("v3-8")).fits


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_compiled(compile_to):
    compile_to(None)
    with pytest.raises(UserError, match="batch size 12 does not divide.*12 % 8 = 4"):
        plan.make_plan(CONFIG.replace("run", batch_size=12), parse_slice("v5e-8"))
