import dataclasses

import numpy as np
import pytest

from switch_jax.planning.collectives import collectives, seconds_of
from switch_jax.planning.hardware import parse_slice
from switch_jax.planning.program import Operation


@dataclasses.dataclass
class Device:
    coords: tuple[int, int, int]
    slice_index: int = 0


@dataclasses.dataclass
class FakeMesh:
    """What `collectives` reads of a mesh: v5p:4x4x8's chips as (data 8, expert 16, model 1)."""

    devices: np.ndarray
    axis_names: tuple[str, ...] = ("data", "expert", "model")


@pytest.fixture
def mesh():
    devices = np.empty((8, 16, 1), object)
    for z in range(8):
        for x in range(4):
            for y in range(4):
                devices[z, x * 4 + y, 0] = Device((x, y, z))
    return FakeMesh(devices)


def _operation(opcode, shape, groups, times=1):
    return Operation("o", opcode, shape, f"(%x), replica_groups={groups}", times, 0, "")


def test_kinds_axes_counts_and_bytes(mesh):
    expert = "{{0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15},{16,17}}"
    operations = [
        _operation("all-to-all", "bf16[16,8,80,768]{3,2,1,0}", expert, times=12),
        _operation("all-to-all", "bf16[16,8,80,768]{3,2,1,0}", expert, times=12),
        # iota form: every 16th device, the data axis.
        _operation("all-reduce-start", "f32[768,128]{1,0}", "[16,8]<=[8,16]T(1,0)"),
        _operation("all-reduce", "f32[]{:T(128)}", "{{0},{1}}"),  # alone: sends nothing
        _operation("add", "f32[8]{0}", expert),
    ]
    found = {(c.op, c.axis): c for c in collectives(operations, mesh, parse_slice("v5p:4x4x8"))}
    assert set(found) == {("all-to-all", "expert"), ("all-reduce", "data")}
    exchange = found["all-to-all", "expert"]
    assert (exchange.dtype, exchange.count) == ("bf16", 24)
    assert exchange.bytes == 24 * 16 * 8 * 80 * 768 * 2
    assert found["all-reduce", "data"].bytes == 768 * 128 * 4


def test_a_tuple_counts_all_its_arrays_and_one_exchange(mesh):
    tuple_ = _operation("all-reduce", "(bf16[10]{0}, f32[5]{0})", "[16,8]<=[8,16]T(1,0)")
    found = collectives([tuple_], mesh, parse_slice("v5p:4x4x8"))
    assert {(c.dtype, c.bytes) for c in found} == {("bf16", 20), ("f32", 20)}
    assert sum(c.count for c in found) == 1


def test_the_time_model_by_hand(mesh):
    hardware = parse_slice("v5p:4x4x8")
    square, line = range(16), range(0, 128, 16)
    # All-reduce of 1 GB over 8 chips in a ring: 2 x 7/8 GB through two directions of 100 GB/s.
    ring = seconds_of("all-reduce", 1e9, line, mesh, hardware)
    assert ring == pytest.approx(2 * 7 / 8 * 1e9 / 200e9)
    # All-gather over 4 x 4: both dimensions at once.
    gathered = seconds_of("all-gather", 1e9, square, mesh, hardware)
    assert gathered == pytest.approx(15 / 16 * 1e9 / 400e9)
    # All-to-all over the closed ring of 8: an eighth of 8 chips' bytes over each link.
    assert seconds_of("all-to-all", 1e9, line, mesh, hardware) == pytest.approx(1e9 / 100e9)


def test_between_slices_the_network_is_the_limit(mesh):
    for device in mesh.devices[4:].flat:
        device.slice_index = 1
    hardware = parse_slice("2xv5p:4x4x4")
    # 8 chips in two slices: each sends its quarter of what its slice has reduced, there and back.
    seconds = seconds_of("all-reduce", 1e9, range(0, 128, 16), mesh, hardware)
    assert seconds == pytest.approx(2 * (1e9 / 4) / 2 / 6.25e9)
