import dataclasses

import jax
import numpy as np
import pytest

from switch_jax.config import Config, DataConfig, MeshConfig, ModelConfig, RunConfig
from switch_jax.errors import UserError
from switch_jax.hardware import parse_slice
from switch_jax.planning import compiler, plan
from switch_jax.planning.compiler import OutOfMemory, Program
from switch_jax.planning.program import Operation, operations
from tests.planning.meshes import Device, FakeMesh

# Four devices exchange; the loop runs 12 times; kernel.2 equals kernel.1 but for its number.
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
    """v5p:2x2x1's chips, all along the expert axis."""
    devices = np.empty((1, 4, 1), object)
    for i in range(4):
        devices[0, i, 0] = Device((i // 2, i % 2, 0))
    return FakeMesh(devices)


@pytest.fixture
def costs(mesh):
    return plan.costs_of(PROGRAM, mesh, parse_slice("v5p:2x2x1"))


def test_cycles_add_up_by_part_and_by_trips(costs):
    assert costs.cycles_by_part == {
        "attention": 12 * 1000,
        "dispatch": 12 * (200 + 200),  # the second one, equal to the first, is written down once
        "experts": 12 * 30,  # what an all-to-all does in its own device's memory
        "other": 50,
    }
    assert costs.estimated_cycles == 12000 + 4800 + 360 + 50
    assert list(costs.cycles_by_part) == ["attention", "dispatch", "experts", "other"]


def test_what_was_counted_from_the_schedule_is_told_apart(costs):
    assert costs.scheduled_cycles == 4800 + 360


def test_what_nobody_counted_is_listed_by_kind(costs):
    # kernel.3 has another shape than those that were written down. Scalars, what runs in the
    # background and what only tells the compiler something are no work.
    assert costs.uncounted == {"custom-call": 1}


def test_an_all_reduce_is_an_exchange_and_no_computation(costs):
    found = {c.op: c for c in costs.collectives}
    assert set(found) == {"all-to-all", "all-reduce"}
    assert (found["all-reduce"].count, found["all-reduce"].bytes) == (1, 4000)
    assert (found["all-to-all"].count, found["all-to-all"].bytes) == (12, 12 * 4 * 128 * 2)
    assert {c.axis for c in costs.collectives} == {"expert"}


def test_the_step_time_model_by_hand(costs):
    # 459 TFLOP/s by 8 units of 128 x 128, two FLOPs each; links of 100 GB/s, here in a square:
    # all of the all-reduce there and back, but a chip's own quarter, over two rings both ways;
    # half of what an all-to-all sends crosses one of the open rings of two.
    cycles = 17210 / (459e12 / 262144)
    reduced = 2 * 4000 * 3 / 4 / 400e9
    exchanged = 12288 / 2 / 100e9
    assert costs.compute_seconds == pytest.approx(cycles)
    assert costs.collective_seconds == pytest.approx(reduced + exchanged)
    assert costs.step_seconds == pytest.approx(cycles + reduced + exchanged)


def test_flops_of_all_devices_by_trips(mesh):
    def product(name, flops, times):
        return Operation(name, "fusion", "bf16[8]{0}", "(%x), calls=%f", times, flops, "")

    program = dataclasses.replace(PROGRAM, operations=[product("a", 100, 12), product("b", 7, 1)])
    assert plan.costs_of(program, mesh, parse_slice("v5p:2x2x1")).compiled_flops == 4 * 1207


def test_memory_is_a_chip_s_though_a_device_be_half_a_chip(mesh):
    costs = plan.costs_of(PROGRAM, mesh, parse_slice("v3:2x2"))
    assert (costs.arguments_bytes, costs.outputs_bytes) == (2000, 200)
    assert costs.temporaries_bytes == 1000


MODEL = ModelConfig(
    num_embeddings=100, embed_dim=8, mlp_dim=16, head_dim=4, num_heads=2, num_encoder_layers=2,
    num_decoder_layers=2, num_experts=4, expert_mlp_dim=16, sparse_step=2, group_size=32,
)  # fmt: skip
CONFIG = Config(
    RunConfig("none", train_steps=1, batch_size=16),
    MODEL,
    DataConfig("none", {"inputs": 32, "targets": 16}),
    MeshConfig(2, 4, 1),
)
# By hand: the tables of words and of relative positions (one a stack), then each stack's norms and
# blocks of two layers: attention of 4 x 8 x 8, a dense layer, four experts and their router.
ATTENTION, DENSE = 4 * 8 * 8, 2 * 8 * 16
FEED_FORWARDS = DENSE + 4 * DENSE + 8 * 4
PARAMETERS = (
    100 * 8 + 2 * 32 * 2
    + (2 * ATTENTION + FEED_FORWARDS + 4 * 8 + 8)
    + (4 * ATTENTION + FEED_FORWARDS + 6 * 8 + 8)
)  # fmt: skip


@pytest.fixture
def compile_to(monkeypatch):
    """Gives what the compiler is to answer; the devices are this machine's virtual CPUs."""

    def answer(result):
        monkeypatch.setattr(plan, "devices", lambda _: jax.devices())
        monkeypatch.setattr(plan, "lower_train_step", lambda *_: None)
        monkeypatch.setattr(plan, "compile_program", lambda _: result)

    return answer


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
    assert [its[:3] for its in made.groups.values()] == [(32, 10, 1.25)] * 2
    assert made.as_json()["routing_groups"]["encoder"]["slots"] == 10
    seconds = 16850 / (197e12 / 131072)
    assert made.tokens_per_second == pytest.approx(768 / seconds)
    assert made.as_json()["input_tokens_per_step"] == 16 * 32
    assert made.as_json()["hbm_program_bytes"] == 60
    assert made.days == pytest.approx(576e9 / 512 * seconds / 86400)
    assert made.utilisation == pytest.approx(made.model_flops / 8 / (16850 * 131072))


def test_a_plan_of_a_step_that_does_not(compile_to):
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


@pytest.mark.parametrize(
    ("message", "needed", "limit"),
    [
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
            "space hbm. Used 31.50G of 15.75G hbm. Exceeded hbm capacity by 15.75G.\nTotal ...",
            31.5, 15.75,
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (24.75G) exceeds available HBM (15.75G).",
            24.75, 15.75,
        ),
    ],
)  # fmt: skip
def test_the_compiler_s_verdicts_are_read(message, needed, limit, monkeypatch, tmp_path):
    monkeypatch.setattr(compiler, "_prepare", lambda: tmp_path)
    verdict = compiler.compile_program(_Refusing(message))
    assert isinstance(verdict, OutOfMemory)
    assert (verdict.needed, verdict.limit) == (needed * 2**30, limit * 2**30)
    assert "\n" not in verdict.message


def test_another_error_of_the_compiler_is_raised(monkeypatch, tmp_path):
    monkeypatch.setattr(compiler, "_prepare", lambda: tmp_path)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL: something else"):
        compiler.compile_program(_Refusing("INTERNAL: something else"))


class _Refusing:
    """A lowered program that the compiler answers with an error."""

    def __init__(self, message):
        self.message = message

    def compile(self):
        raise jax.errors.JaxRuntimeError(self.message)


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_compiled(compile_to):
    compile_to(None)
    with pytest.raises(UserError, match="batch size 12 does not divide.*12 % 8 = 4"):
        plan.make_plan(CONFIG.replace("run", batch_size=12), parse_slice("v5e-8"))
