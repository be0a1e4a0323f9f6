"""Plans from a compiled program, and from the compiler's out-of-memory error."""

import dataclasses

import jax
import numpy as np
import pytest

from switch_jax.hardware.tpus import parse_slice
from switch_jax.model.flops import parameter_count
from switch_jax.planning import plan
from switch_jax.planning.compiler import OutOfMemory, Program
from switch_jax.planning.costs import costs_of
from switch_jax.planning.hlo import Operation
from switch_jax.train_step.state import TrainState
from switch_jax.utils.errors import UserError
from tests.planning.helpers import CONFIG, Device, FakeMesh


def _operation(
    name, shape, attributes="(%p)", *, count=1, flops=0, scope="", cycles=None, **fields
):
    estimate = "" if cycles is None else f'"estimated_cycles":"{cycles}"'
    opcode = name.rstrip(".123")
    attributes, op_name = f"{attributes}, {estimate}", f"jit(step)/{scope}/x"
    return Operation(name, opcode, shape, attributes, count, flops, op_name, **fields)


# Four devices exchange; a loop runs 12 times; kernel.2 equals kernel.1 except for its name.
FOUR, KERNEL = "(%g), replica_groups={{0,1,2,3}}", {"count": 12, "scope": "dispatch"}
SCHEDULED = {"kernel.1": 200, "all-to-all.1": 30, "all-reduce.1": 7000, "copy-start.1": 9}
V5P = parse_slice("v5p:2x2x1")
PROGRAM = Program(
    operations=[
        _operation("fusion.1", "bf16[8,128]", count=12, flops=5, scope="attention", cycles=1000),
        _operation("kernel.1", "bf16[8,128]", **KERNEL),
        _operation("kernel.2", "bf16[8,128]", **KERNEL),
        _operation("all-to-all.1", "bf16[4,128]", FOUR, count=12, scope="experts"),
        _operation("while.1", "(s32[], bf16[8,128])"),
        _operation("kernel.3", "bf16[4,128]", scope="dispatch"),
        _operation("all-reduce.1", "f32[1000]", FOUR),
        _operation("copy-start.1", "(bf16[8,128], bf16[8,128], u32[])"),
        _operation("add.1", "f32[1,1]"),
        _operation("copy.1", "bf16[8,128]", flops=7, cycles=50, operands=("bf16[8,128]",)),
    ],
    scheduled=SCHEDULED,
    arguments=1000,
    outputs=900,
    aliased=800,
    temporaries=500,
    code=60,
    seconds=1.5,
)


def _chips(_, hardware):
    """All chips along data, in the order of their coordinates."""
    coords = [(*c, i) for i in range(hardware.count) for c in np.ndindex(*hardware.shape)]
    devices = np.empty((len(coords), 1, 1), object)
    devices[:, 0, 0] = [Device(tuple(c), i) for *c, i in coords]
    return FakeMesh(devices)


@pytest.fixture
def mesh():
    return _chips(None, V5P)


@pytest.fixture
def costs(mesh):
    return costs_of(PROGRAM, mesh, V5P)


def test_cycles_and_flops_include_loop_iterations(costs):
    assert costs.compiled_flops == 4 * (12 * 5 + 7), "of four devices"
    # There is no all-reduce, which is an exchange.
    assert costs.cycles_by_part == {
        "attention": 12 * 1000,
        "dispatch": 12 * (200 + 200),  # equal operations, of which the schedule has one
        "experts": 12 * 30,  # the all-to-all's work in the memory of its device
        "other": 50,
    }
    assert costs.estimated_cycles == 12000 + 4800 + 360 + 50
    assert costs.scheduled_cycles == 4800 + 360
    # kernel.3 has another shape than the operations in the schedule. Scalars and operations in the
    # background take no time of a core.
    assert costs.uncounted == {"kernel": 1}


def test_the_floor_of_a_part_is_by_products_or_traffic(costs):
    # v5p reads 2765 GB/s at 1.751 GHz: 1579 bytes a cycle. The attention fusion and the kernels
    # have 2 kB results, and no operands here. An all-to-all has 1 kB.
    per_cycle = 2765e9 / (459e12 / 262144)
    assert costs.floor_by_part == {
        "attention": round(12 * 2048 / per_cycle),
        "dispatch": round(24 * 2048 / per_cycle),
        "experts": round(12 * 1024 / per_cycle),
        "other": round(2 * 2048 / per_cycle),  # a copy: read and written
    }


@pytest.mark.parametrize(
    ("flops", "floor"),
    [(0, 2 * 2048 / 1579), (262144 * 17, 17), (262144 * 5000, 50)],  # the copy takes 50 cycles
)
def test_the_floor_of_an_operation_is_the_longer_of_both_and_no_more_than_it_takes(
    mesh, flops, floor
):
    copy = next(o for o in PROGRAM.operations if o.name == "copy.1")
    program = dataclasses.replace(PROGRAM, operations=[dataclasses.replace(copy, flops=flops)])
    costs = costs_of(program, mesh, V5P)
    assert costs.floor_by_part == {"other": round(floor)}


@pytest.mark.parametrize(
    ("result", "estimate", "counted"),
    [
        ("bf16[12,16,512,768]", 946720, round((12 * 16 * 512 * 768 * 2 + 2) / 1579.1)),
        ("bf16[8,128]", 2139, 2100),  # what the smallest operations take
        ("bf16[8,128]", 50, 50),
    ],
)
def test_filling_an_array_takes_as_long_as_its_bytes(mesh, result, estimate, counted):
    fill = _operation("broadcast.1", result, cycles=estimate, operands=("bf16[]",))
    costs = costs_of(dataclasses.replace(PROGRAM, operations=[fill]), mesh, V5P)
    assert costs.estimated_cycles == pytest.approx(counted, rel=1e-4)


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


def test_memory_is_that_of_a_chip_even_if_a_device_is_half_a_chip(mesh):
    costs = costs_of(PROGRAM, mesh, parse_slice("v3:2x2"))
    found = (costs.arguments_bytes, costs.outputs_bytes, costs.temporaries_bytes)
    assert found == (2000, 200, 1000)


@pytest.fixture
def compile_to(monkeypatch):
    """Sets the compiler's result; the devices are this machine's virtual CPUs."""

    def set_result(result):
        monkeypatch.setattr(plan, "devices", lambda _: jax.devices())
        monkeypatch.setattr(plan, "lower_train_step", lambda *_: None)
        monkeypatch.setattr(plan, "compile_program", lambda _: result)

    return set_result


def test_a_plan_of_a_step_that_fits(compile_to):
    alone = [o for o in PROGRAM.operations if not o.opcode.startswith("all-")]
    compile_to(dataclasses.replace(PROGRAM, operations=alone))
    made = plan.make_plan(CONFIG, parse_slice("v5e-8"))
    assert made.fits
    assert made.mesh == (2, 4, 1)
    assert made.parameters == parameter_count(CONFIG.model)
    assert made.parameter_bytes == 4 * made.parameters  # float32
    assert made.hbm_bytes_per_chip == 1000 + 900 - 800 + 500 + 60
    assert made.hbm_limit_bytes == 16 * 2**30
    # A host has all eight chips, and so at least one copy of the whole state.
    state = made.parameter_bytes + made.optimizer_bytes
    assert 16 * 2**30 + state <= made.host_bytes < 16 * 2**30 + 8 * state
    assert made.host_limit_bytes == 384 * 2**30
    assert (made.tokens_per_step, made.input_tokens_per_step) == (16 * (32 + 16), 16 * 32)
    # A row of 32 inputs, two of 16 targets, 4 experts: 32 / 4 x 1.25 = 10 slots.
    assert [groups[:3] for groups in made.routing_groups.values()] == [(32, 10, 1.25)] * 2
    seconds = 16850 / (197e12 / 131072)
    assert made.tokens_per_second == pytest.approx(768 / seconds)
    assert made.days == pytest.approx(CONFIG.run.train_steps * seconds / 86400)
    assert made.chip_hours == pytest.approx(8 * CONFIG.run.train_steps * seconds / 3600)
    assert made.waiting == 0.0 and made.waiting_seconds_elsewhere == {}
    assert made.paper_days == pytest.approx(576e9 / 512 * seconds / 86400)
    assert made.utilisation == pytest.approx(made.model_flops / 8 / (16850 * 131072))


def test_a_plan_of_a_step_that_does_not_fit(compile_to):
    compile_to(OutOfMemory(15 * 2**30, 15 * 2**30, 2.5))  # the compiler rounds what it prints
    made = plan.make_plan(CONFIG, parse_slice("v3-8"))
    assert not made.fits
    # Two devices a chip.
    assert (made.hbm_bytes_per_chip, made.hbm_limit_bytes) == (30 * 2**30, 30 * 2**30)


def _known_slice(hardware):
    if hardware.name == "v5e-64":
        raise UserError("libtpu has no such slice")
    return hardware


@pytest.mark.parametrize(
    "name, others",
    [
        # By hand: 1 MiB goes to the other slice and back, half of it in each of two rounds.
        ("2xv5e-16", {"v5e-32": 2 * 2**20 / 2 / 100e9}),  # both links of one dimension
        ("4xv5e-16", {"2xv5e-32": 2 * 2**20 / 2 * 1 / 2 / 3.125e9}),  # 4 chips, 2 of each slice
        ("v5e-32", {}),
    ],
)
def test_slices_of_the_same_chips_that_wait_less(name, others, compile_to, monkeypatch):
    across = '(%x), frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}'
    send = Operation("send.1", "send", "(f32[262144], u32[], token[])", across, 1, 0, "")
    gather = Operation("g", "all-gather", "f32[1]", "(%x), replica_groups={{0,1}}", 1, 0, "")
    compile_to(dataclasses.replace(PROGRAM, operations=[send, gather]))
    monkeypatch.setattr(plan, "devices", _known_slice)
    monkeypatch.setattr(plan, "make_mesh", _chips)
    monkeypatch.setattr(plan, "lowered_step", lambda *_: (TrainState({}, {}, {}, None), None))
    made = plan.make_plan(CONFIG.replace("run", batch_size=64), parse_slice(name))
    assert made.waiting == 1.0  # the program computes nothing
    assert made.waiting_seconds_elsewhere == pytest.approx(others, abs=1e-8)
