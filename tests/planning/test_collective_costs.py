"""Collectives of a mesh, by hand."""

import dataclasses

import numpy as np
import pytest

from switch_jax.hardware.tpus import parse_slice
from switch_jax.planning.collective_costs import BETWEEN_SLICES, collectives, seconds_of
from switch_jax.planning.hlo import Operation
from tests.planning.helpers import Device, FakeMesh


@pytest.fixture
def mesh():
    """The chips of v5p:4x4x8 as (data 8, expert 16, model 1)."""
    layers = [[Device((x, y, z)) for x in range(4) for y in range(4)] for z in range(8)]
    return FakeMesh(np.array(layers, object)[..., None])


@pytest.fixture
def two_slices(mesh):
    """The same chips as two slices of v5p:4x4x4."""
    for device in mesh.devices[4:].flat:
        device.slice_index = 1
    return mesh


def found_in(operations, mesh, name, **options):
    """The collectives of a program that computes nothing."""
    nothing = [0.0] * len(operations)
    return collectives(operations, mesh, parse_slice(name), nothing, **options)


def _operation(opcode, shape, groups, count=1):
    return Operation("o", opcode, shape, f"(%x), replica_groups={groups}", count, 0, "")


def test_kinds_axes_counts_and_bytes(mesh):
    expert = "{{0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15},{16,17}}"
    operations = [
        _operation("all-to-all", "bf16[16,8,80,768]{3,2,1,0}", expert, count=12),
        _operation("all-to-all", "bf16[16,8,80,768]{3,2,1,0}", expert, count=12),
        # iota form: every 16th device, the data axis.
        _operation("all-reduce-start", "f32[768,128]{1,0}", "[16,8]<=[8,16]T(1,0)"),
        _operation("all-reduce", "f32[]{:T(128)}", "{{0},{1}}"),  # alone: sends nothing
        _operation("all-reduce", "f32[8]{0}", "mesh['axis_0'=128,'axis_1'=1] {'axis_1'}"),
        _operation("add", "f32[8]{0}", expert),
    ]
    result = found_in(operations, mesh, "v5p:4x4x8")
    by_axis = {(c.op, c.axis): c for c in result}
    assert set(by_axis) == {("all-to-all", "expert"), ("all-reduce", "data")}
    exchange = by_axis["all-to-all", "expert"]
    assert (exchange.dtype, exchange.count) == ("bf16", 24)
    assert exchange.bytes == 24 * 16 * 8 * 80 * 768 * 2
    assert by_axis["all-reduce", "data"].bytes == 768 * 128 * 4


def test_the_time_model_by_hand(mesh):
    hardware = parse_slice("v5p:4x4x8")
    square, line = range(16), range(0, 128, 16)
    # All-reduce of 1 GB over 8 chips in a ring: 2 x 7/8 GB through two directions of 100 GB/s.
    ring = seconds_of("all-reduce", 1e9, line, mesh, hardware)
    assert ring == pytest.approx(2 * 7 / 8 * 1e9 / 200e9)
    # All-gather over 4 x 4: both dimensions at once.
    gathered = seconds_of("all-gather", 1e9, square, mesh, hardware)
    assert gathered == pytest.approx(15 / 16 * 1e9 / 400e9)
    # All-to-all over the ring of 8: 8 / 8 of a chip's bytes cross each link.
    assert seconds_of("all-to-all", 1e9, line, mesh, hardware) == pytest.approx(1e9 / 100e9)


def test_between_slices_the_network_is_the_limit(two_slices):
    hardware = parse_slice("2xv5p:4x4x4")
    # 8 chips in two slices: each exchanges the quarter that its slice has reduced, twice.
    seconds = seconds_of("all-reduce", 1e9, range(0, 128, 16), two_slices, hardware)
    assert seconds == pytest.approx(2 * (1e9 / 4) / 2 / 6.25e9)


@pytest.mark.parametrize(
    ("groups", "axis", "members"),
    [
        ("mesh['axis_0'=128,'axis_1'=1] {'axis_0'}", "data+expert", 128),
        # 128 = 8 of data x 16 of expert, the devices in that order.
        ("mesh['axis_0'=8,'axis_1'=16] {'axis_1'}", "expert", 16),
        # Of an axis of 128 = 8 x 16, the second factor: devices 0, 1, ... 15.
        ("mesh['axis_0'=128] {'axis_0':(8)16}", "expert", 16),
        # Of an axis of 128 = 1 x 8 x 16, the middle factor: devices 0, 16, ... 112.
        ("mesh['axis_0'=128,'axis_1'=1] {'axis_0':(1)8}", "data", 8),
        # Devices in another order: 0, 8, ... 120 in the first row.
        ("mesh['axis_0'=8,'axis_1'=16], device_ids=([16,8]T(1,0)) {'axis_1'}", "data+expert", 16),
    ],
)
def test_groups_written_as_axes_of_a_mesh(mesh, groups, axis, members):
    # The bytes of a reduce-scatter are those of its operand, and so show the size of the group.
    operation = _operation("reduce-scatter", "bf16[100]{0}", groups)
    (found,) = found_in([operation], mesh, "v5p:4x4x8")
    assert found.axis == axis
    assert found.bytes == 200 * members


def test_exchanges_between_slices(two_slices):
    shape = "(f32[1000,8]{1,0:T(8,128)}, u32[]{:T(128)S(2)}, token[])"
    attributes = '(%x, %token), frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}'
    across = Operation("send.1", "send", shape, attributes, 3, 0, "")
    done = dataclasses.replace(across, name="send-done.1", opcode="send-done", shape="token[]")
    to_the_host = dataclasses.replace(across, attributes="(%x), is_host_transfer=true")
    (found,) = found_in([across, done, to_the_host], two_slices, "2xv5p:4x4x4")
    assert (found.op, found.dtype, found.axis) == ("all-reduce", "f32", BETWEEN_SLICES)
    assert (found.count, found.bytes) == (3, 3 * 1000 * 8 * 4)
    # Half of the bytes in each of two rounds, 50 Gbit/s for each chip.
    assert found.seconds == pytest.approx(3 * 2 * 32000 / 2 / 6.25e9)


def test_a_group_that_cannot_be_read_is_an_error(mesh):
    unknown = _operation("all-reduce", "f32[8]{0}", "something new")
    with pytest.raises(ValueError, match="cannot be read.*something new"):
        found_in([unknown], mesh, "v5p:4x4x8")


@pytest.mark.parametrize(
    ("opcode", "shape", "sent"),
    [
        ("all-gather-start", "(bf16[4], bf16[32])", {("bf16", 64)}),  # operand, result
        ("all-reduce-start", "(f32[1000], f32[10])", {("f32", 4040)}),  # two results
        ("all-to-all-start", "((bf16[8,4]), bf16[8,4], u32[]{:S(2)}, u32[])", {("bf16", 64)}),
        ("collective-permute-start", "(bf16[8,128], bf16[8,128], u32[], u32[])", {("bf16", 2048)}),
        ("reduce-scatter", "f32[10]", {("f32", 320)}),  # an eighth of the operand
    ],
)
def test_bytes_of_exchanges_in_the_background(mesh, opcode, shape, sent):
    operation = _operation(opcode, shape, "[16,8]<=[8,16]T(1,0)")
    found = found_in([operation], mesh, "v5p:4x4x8")
    assert {(c.dtype, c.bytes) for c in found} == sent


def test_what_is_exchanged_beside_computation_is_not_waited_for(mesh):
    groups = "[16,8]<=[8,16]T(1,0)"
    start = _operation("all-reduce-start", "(f32[1000], bf16[1000])", groups, count=2)
    start = dataclasses.replace(start, name="start")
    compute = _operation("fusion", "f32[8]", "")
    done = dataclasses.replace(compute, opcode="all-reduce-done", attributes="(%start)")
    hardware = parse_slice("v5p:4x4x8")
    whole = seconds_of("all-reduce", 6000, range(0, 128, 16), mesh, hardware) * 2
    for computing, waiting in ((0.25, 0.75), (2.0, 0.0)):
        seconds = [0.0, computing * whole, 0.0]
        found = collectives([start, compute, done], mesh, hardware, seconds)
        assert {c.dtype: c.count for c in found} == {"f32": 2, "bf16": 0}
        assert sum(c.seconds for c in found) == pytest.approx(whole)
        for exchange in found:
            assert exchange.waiting_seconds == pytest.approx(waiting * exchange.seconds)
