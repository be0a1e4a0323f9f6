"""How fast this machine is: products, memory, and exchanges along each axis of the mesh."""

import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from switch_jax.doctor.checks import Check, Finding, Verdict
from switch_jax.hardware import device_bandwidth, device_peak_flops, slice_of
from switch_jax.partitioning.mesh import AXES
from switch_jax.planning.collective_costs import seconds_of as planned_seconds
from switch_jax.planning.measured import Speeds, exchange_name

_SECONDS = 1.0  # of measuring, for each figure
_FEWEST, _MOST = 3, 200  # runs

EXCHANGES = ("all-to-all", "all-reduce", "all-gather")
SLOW = 0.5  # of what plans assume


class Machine:
    """The speeds of a mesh's devices, each measured once and with all of them at work."""

    def __init__(self, mesh: Mesh) -> None:
        """Measures nothing yet.

        Args:
          mesh: also that of `jax.set_mesh`.
        """
        self.mesh = mesh
        self.is_cpu = mesh.devices.flat[0].platform == "cpu"

    @functools.cached_property
    def flops_per_second(self) -> float:
        """Of a product of square matrices: bfloat16, and float32 on CPUs."""
        size, dtype = (1024, "float32") if self.is_cpu else (8192, "bfloat16")
        x = _on_each_device(self.mesh, (size, size), dtype)
        product = jax.jit(lambda x: jnp.einsum("nij,njk->nik", x, x))
        return 2 * size**3 / seconds_of(lambda: product(x))

    @functools.cached_property
    def bytes_per_second(self) -> float:
        """Of an addition to an array of memory, which is read and written."""
        size = 2**20 * (64 if self.is_cpu else 512)
        x = _on_each_device(self.mesh, (size // 4,), "float32")
        add = jax.jit(lambda x: x + 1)
        return 2 * size / seconds_of(lambda: add(x))

    @functools.cached_property
    def exchanges(self) -> dict[str, float]:
        """Bytes a second of each exchange along each axis of several devices, by its name."""
        return {
            exchange_name(op, axis): self.exchange(op, axis)[0] for op, axis in self.exchanged()
        }

    def exchanged(self) -> Iterator[tuple[str, str]]:
        """All exchanges that are measured: op, axis."""
        axes = [axis for axis in AXES if self.mesh.shape[axis] > 1]
        return itertools.product(EXCHANGES, axes)

    @functools.cache  # noqa: B019  # as long as the program runs
    def exchange(self, op: str, axis: str) -> tuple[float, float | None]:
        """Bytes a second of results of 64 MiB a device, 8 on CPUs; and those of the model."""
        devices = self.mesh.shape[axis]
        size = 2**20 * (8 if self.is_cpu else 64) // devices * devices
        rows = size // (4 * 128) // devices * devices
        x = _on_each_device(self.mesh, (rows, 128), "float32")

        def local(x: jax.Array) -> jax.Array:  # [1, rows, 128]
            if op == "all-to-all":
                return lax.all_to_all(x, axis, split_axis=1, concat_axis=1, tiled=True)
            if op == "all-reduce":
                return lax.psum(x, axis)
            return lax.all_gather(x[:, : rows // devices], axis, axis=1, tiled=True)

        spec = PartitionSpec(AXES)
        run = jax.jit(
            jax.shard_map(local, mesh=self.mesh, in_specs=spec, out_specs=spec, check_vma=False)
        )
        size = rows * 128 * 4
        slice_ = slice_of(self.mesh.devices.flat)
        planned = None
        if slice_ is not None:
            indices = np.arange(self.mesh.size).reshape(self.mesh.devices.shape)
            group = np.moveaxis(indices, AXES.index(axis), -1).reshape(-1, devices)[0]
            planned = size / planned_seconds(op, size, group.tolist(), self.mesh, slice_)
        return size / seconds_of(lambda: run(x)), planned

    @property
    def speeds(self) -> Speeds:
        """All of them."""
        return Speeds(self.flops_per_second, self.bytes_per_second, self.exchanges)


def speed_checks(machine: Machine) -> Iterator[Check]:
    """Products and memory of a device, and exchanges along the axes of the mesh that have several.

    Each has failed where it is slower than half of what plans assume.
    """
    yield Check("products", functools.partial(_products, machine))
    yield Check("memory", functools.partial(_memory, machine))
    for op, axis in machine.exchanged():
        yield Check(exchange_name(op, axis), functools.partial(_exchange, machine, op, axis))


def _products(machine: Machine) -> Finding:
    rate = machine.flops_per_second
    peak = device_peak_flops(machine.mesh.devices.flat[0].device_kind)
    advice = "look for another program on the devices, and whether they are throttled (power, heat)"
    text = f"{rate / 1e12:.3g} TFLOP/s a device"
    return _compared("products", text, "flops_per_second", rate, peak, "their peak", advice)


def _memory(machine: Machine) -> Finding:
    rate = machine.bytes_per_second
    known = device_bandwidth(machine.mesh.devices.flat[0].device_kind)
    advice = "look for another program on the devices"
    text = f"{rate / 1e9:.3g} GB/s a device"
    return _compared("memory", text, "bytes_per_second", rate, known, "what they have", advice)


def _exchange(machine: Machine, op: str, axis: str) -> Finding:
    rate, planned = machine.exchange(op, axis)
    advice = (
        f"a link may be slow, or devices along {axis} may not be neighbours: try another mesh, and "
        "give plan this file with --measured"
    )
    text = f"{rate / 1e9:.3g} GB/s a device over {machine.mesh.shape[axis]} devices"
    name = exchange_name(op, axis)
    return _compared(name, text, "bytes_per_second", rate, planned, "what plan assumes", advice)


def _compared(
    name: str, text: str, key: str, rate: float, known: float | None, of: str, advice: str
) -> Finding:
    """A finding of a speed, beside that of a table where there is one."""
    numbers = {key: rate} | ({f"planned_{key}": known} if known else {})
    if not known:
        return Finding(name, Verdict.OK, text, numbers)
    verdict = Verdict.OK if rate >= SLOW * known else Verdict.FAILED
    return Finding(name, verdict, f"{text}, {rate / known:.0%} of {of}", numbers, advice)


def seconds_of(run: Callable[[], Any]) -> float:
    """The median time of a run in seconds, after one that compiles and one that warms up."""
    for _ in range(2):
        start = time.perf_counter()
        jax.block_until_ready(run())
        first = time.perf_counter() - start
    number = max(_FEWEST, min(_MOST, int(_SECONDS / max(first, 1e-6))))
    times = []
    for _ in range(number):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _on_each_device(mesh: Mesh, shape: tuple[int, ...], dtype: str) -> jax.Array:
    """An array [devices, ...] of ones, of which each device has one row."""
    sharding = NamedSharding(mesh, PartitionSpec(AXES))
    make = jax.jit(lambda: jnp.ones((mesh.size, *shape), dtype), out_shardings=sharding)
    return make()
