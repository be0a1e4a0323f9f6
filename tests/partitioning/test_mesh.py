"""Meshes of TPU devices that are not there: only what `make_mesh` reads of a device is made up."""

import dataclasses
import itertools
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from switch_jax.config import MeshConfig
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
    id: int
    coords: tuple[int, ...]
    slice_index: int = 0
    core_on_chip: int = 0
    device_kind: str = "TPU v5"
    platform: str = "tpu"
    process_index: int = 0


def _chips(sides: tuple[int, ...], slices: int = 1, cores: int = 1, **facts) -> list[Chip]:
    places = itertools.product(range(slices), *map(range, sides), range(cores))
    return [
        Chip(i, tuple(coords), slice_index, core, **facts)
        for i, (slice_index, *coords, core) in enumerate(places)
    ]


def _far(a: Chip, b: Chip, sides: tuple[int, ...]) -> int:
    """Hops from one chip to another on a torus."""
    steps = (abs(x - y) for x, y in zip(a.coords, b.coords, strict=True))
    return sum(min(step, side - step) for step, side in zip(steps, sides, strict=True))


@pytest.mark.parametrize(
    ("sides", "facts", "shape"),
    [
        *(((4, 4, 8), {}, shape) for shape in [(1, 128, 1), (8, 8, 2), (2, 2, 32)]),
        ((8, 16, 16), {}, (2, 128, 8)),
        ((16, 16, 1), {"device_kind": "TPU v5 lite"}, (2, 64, 2)),
        ((4, 4, 1), {"device_kind": "TPU v3", "cores": 2}, (2, 8, 2)),
    ],
)
def test_any_shape_that_multiplies_up_is_laid_out(sides, facts, shape):
    devices = _chips(sides, **facts)
    mesh = make_mesh(MeshConfig(*shape), devices)
    assert mesh.devices.shape == shape
    assert mesh.axis_names == ("data", "expert", "model")
    assert set(mesh.devices.flat) == set(devices)


def test_devices_that_exchange_tokens_lie_on_one_side_of_the_torus():
    """8 devices of 4 x 4 x 8, in whatever order they come, make a ring without a detour."""
    sides = (4, 4, 8)
    devices = np.random.default_rng(0).permutation(np.array(_chips(sides), object)).tolist()
    mesh = make_mesh(MeshConfig(16, 8, 1), devices).devices[..., 0]
    for ring in mesh:
        hops = [_far(a, b, sides) for a, b in zip(ring, np.roll(ring, 1), strict=True)]
        assert sum(hops) == 8


@pytest.mark.parametrize("shape", [(2, 256, 1), (None, 16, 4)])
def test_slices_lie_along_data_alone(shape):
    devices = _chips((16, 16, 1), slices=2, device_kind="TPU v5 lite")
    mesh = make_mesh(MeshConfig(*shape), devices)
    slices = np.vectorize(lambda chip: chip.slice_index)(mesh.devices)
    data = len(slices)
    np.testing.assert_array_equal(slices[: data // 2], 0)
    np.testing.assert_array_equal(slices[data // 2 :], 1)
    assert set(mesh.devices.flat) == set(devices)


@pytest.mark.parametrize(
    ("sizes", "slices", "message"),
    [
        ((4, 192, 1), 3, r"data = 4 does not divide over 3 slices \(4 % 3 = 1\): .*multiple of 3"),
        ((2, 64, 1), 1, r"2 x 64 x 1 = 128, but the number of tpu devices is 256"),
        ((2, 2**10, 1), 1, r"for 2048 devices; it makes 1024 virtual CPU devices"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused_with_the_numbers(sizes, slices, message):
    devices = None if "virtual" in message else _chips((16, 16, 1), slices)
    with pytest.raises(UserError, match=message):
        make_mesh(MeshConfig(*sizes), devices)


def test_virtual_cpus_are_all_used_or_as_many_as_the_sizes_ask_for():
    assert make_mesh(MeshConfig(expert=2)).devices.shape == (4, 2, 1)
    assert make_mesh(MeshConfig(1, 2, 2)).devices.shape == (1, 2, 2)
    assert make_mesh(MeshConfig(1, 2, 1), jax.devices()[4:]).devices.ravel()[0].id == 4


# As jax's plugin for CUDA, which fails where CUDA would be used and has no driver.
PLUGIN = """
import jax
def initialize():
    if "cuda" in (jax.config.jax_platforms or "cuda"):
        raise RuntimeError("operation cuInit(0) failed")
"""
PROGRAM = """
import sys
from pathlib import Path
from switch_jax.hardware import tpus

tpus._DEVICES = Path(sys.argv[1])

from switch_jax.config import MeshConfig
from switch_jax.partitioning.mesh import make_mesh

print(make_mesh(MeshConfig(1, 2, 1)).devices.shape)
"""


@pytest.mark.parametrize("device", [None, "nvidia0"])
def test_gpus_are_looked_for_only_on_a_machine_that_has_accelerators(device, tmp_path):
    for module in ("jax_cuda12_plugin/__init__.py", "jax_plugins/xla_cuda12/__init__.py"):
        (tmp_path / module).parent.mkdir(parents=True)
        (tmp_path / module).write_text(PLUGIN)
    if device:
        (tmp_path / device).touch()
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path],
        env=dict(os.environ, PYTHONPATH=str(tmp_path), JAX_PLATFORMS=""),
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.stdout == "(1, 2, 1)\n"
    assert ("cuInit" in run.stderr) == (device is not None), run.stderr
