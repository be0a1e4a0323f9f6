"""How fast this machine is: products, memory, and exchanges along each axis of the mesh."""

import dataclasses
import functools
import itertools
import math
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
from switch_jax.hardware import device_bandwidth, device_peak_flops, num_slices, slice_of
from switch_jax.partitioning.mesh import AXES, BATCH, DATA
from switch_jax.planning.collective_costs import BETWEEN_SLICES
from switch_jax.planning.collective_costs import seconds_of as planned_seconds
from switch_jax.planning.measured import Exchange, Speeds, exchange_name
from switch_jax.runtime.processes import gather
from switch_jax.units import count

_SECONDS = 1.0  # of measuring, for each figure
_FEWEST, _MOST = 3, 200  # runs

Axes = tuple[str, ...]
EXCHANGES = ("all-to-all", "all-reduce", "all-gather")
SLOW = 0.5  # of what plans assume


class Machine:
    """The speeds of a mesh's devices, each measured once and with all of them at work.

    Attributes:
      mesh: the devices.
      is_cpu: whether they are virtual ones, which share the cores of a machine.
      step_tokens_per_second: of all hosts together, in the step of the config; None until it is
        measured.
    """

    def __init__(self, mesh: Mesh) -> None:
        """Measures nothing yet.

        Args:
          mesh: also that of `jax.set_mesh`.
        """
        self.mesh = mesh
        self.is_cpu = mesh.devices.flat[0].platform == "cpu"
        self.step_tokens_per_second: float | None = None

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
    def exchanged(self) -> list[tuple[str, Axes]]:
        """What is measured: each op along each axis, and along the two of the batch."""
        axes: list[Axes] = [(axis,) for axis in AXES if self.mesh.shape[axis] > 1]
        axes += [BATCH] if all((axis,) in axes for axis in BATCH) else []
        return list(itertools.product(EXCHANGES, axes))

    @functools.cache  # noqa: B019  # as long as the program runs
    def exchange(self, op: str, axes: Axes) -> Exchange:
        """Measures one, of 64 MiB a device, 8 on CPUs, and of 64 KiB."""
        size = 2**20 * (8 if self.is_cpu else 64)
        seconds = self._exchange_seconds(op, axes, size)
        slice_ = slice_of(self.mesh.devices.flat)
        planned = None
        if slice_ is not None:
            indices = np.arange(self.mesh.size).reshape(self.mesh.devices.shape)
            ends = range(-len(axes), 0)
            group = np.moveaxis(indices, [AXES.index(axis) for axis in axes], ends)
            group = group.reshape(-1, self._devices(axes))[0]
            planned = size / planned_seconds(op, size, group.tolist(), self.mesh, slice_)
        return Exchange(size / seconds, self._exchange_seconds(op, axes, 2**16), planned)

    def _exchange_seconds(self, op: str, axes: Axes, size: int) -> float:
        """Of results of about `size` bytes on each device."""
        devices = self._devices(axes)
        rows = -(-size // (4 * 128) // devices) * devices
        x = _on_each_device(self.mesh, (rows, 128), "float32")

        def local(x: jax.Array) -> jax.Array:  # [1, rows, 128]
            if op == "all-to-all":
                return lax.all_to_all(x, axes, split_axis=1, concat_axis=1, tiled=True)
            if op == "all-reduce":
                return lax.psum(x, axes)
            return lax.all_gather(x[:, : rows // devices], axes, axis=1, tiled=True)

        spec = PartitionSpec(AXES)
        run = jax.jit(
            jax.shard_map(local, mesh=self.mesh, in_specs=spec, out_specs=spec, check_vma=False)
        )
        return seconds_of(lambda: run(x))

    def name(self, op: str, axes: Axes) -> str:
        """As in a plan, which calls what goes between slices by a name of its own."""
        between = num_slices(self.mesh.devices.flat) > 1 and axes == (DATA,)
        return exchange_name(op, BETWEEN_SLICES if between else "+".join(axes))

    def _devices(self, axes: Axes) -> int:
        return math.prod(self.mesh.shape[axis] for axis in axes)

    @property
    def speeds(self) -> Speeds:
        """All of them."""
        exchanges = {self.name(op, axes): self.exchange(op, axes) for op, axes in self.exchanged}
        return Speeds(self.flops_per_second, self.bytes_per_second, exchanges)


def speed_checks(machine: Machine) -> Iterator[Check]:
    """Products and memory of a device, and exchanges along the axes of the mesh that have several.

    Each has failed where it is slower than half of what plans assume.
    """
    yield Check("products", functools.partial(_products, machine))
    yield Check("memory", functools.partial(_memory, machine))
    for op, axes in machine.exchanged:
        yield Check(machine.name(op, axes), functools.partial(_exchange, machine, op, axes))


def _products(machine: Machine) -> Finding:
    rate = machine.flops_per_second
    peak = device_peak_flops(machine.mesh.devices.flat[0].device_kind)
    advice = "look for another program on the devices, and whether they are throttled (power, heat)"
    text = f"{count(rate)}FLOP/s a device"
    return _compared(text, "flops_per_second", rate, peak, "their peak", advice)


def _memory(machine: Machine) -> Finding:
    rate = machine.bytes_per_second
    known = device_bandwidth(machine.mesh.devices.flat[0].device_kind)
    advice = "look for another program on the devices"
    text = f"{rate / 1e9:.3g} GB/s a device"
    return _compared(text, "bytes_per_second", rate, known, "what they have", advice)


def _exchange(machine: Machine, op: str, axes: Axes) -> Finding:
    found = machine.exchange(op, axes)
    advice = (
        "a link may be slow, or the devices of an axis may not be neighbours: try another mesh, "
        "and give plan this file with --measured"
    )
    text = (
        f"{found.bytes_per_second / 1e9:.3g} GB/s a device, "
        f"{1e6 * found.small_seconds:.3g} us for 64 KiB"
    )
    finding = _compared(
        text,
        "bytes_per_second",
        found.bytes_per_second,
        found.planned_bytes_per_second,
        "what plan assumes",
        advice,
    )
    numbers = {**finding.numbers, "small_seconds": found.small_seconds}
    return dataclasses.replace(finding, numbers=numbers)


def _compared(
    text: str, key: str, rate: float, known: float | None, of: str, advice: str
) -> Finding:
    """A finding of a speed, beside that of a table where there is one."""
    numbers = {key: rate} | ({f"planned_{key}": known} if known else {})
    if not known:
        return Finding(Verdict.OK, text, numbers)
    verdict = Verdict.OK if rate >= SLOW * known else Verdict.FAILED
    return Finding(verdict, f"{text}, {rate / known:.0%} of {of}", numbers, advice)


def seconds_of(run: Callable[[], Any]) -> float:
    """The median time of a run in seconds, after one that compiles and one that warms up."""
    for _ in range(2):
        start = time.perf_counter()
        jax.block_until_ready(run())
        first = time.perf_counter() - start
    first = max(gather(first))  # so that all processes run it as often
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
