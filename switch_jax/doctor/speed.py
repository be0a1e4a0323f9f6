"""How fast this machine is: products, memory, and exchanges along each axis of the mesh."""

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from switch_jax.doctor.checks import Check, Finding, Verdict
from switch_jax.partitioning.mesh import AXES

_SECONDS = 1.0  # of measuring, for each figure
_FEWEST, _MOST = 3, 200  # runs

EXCHANGES = ("all-to-all", "all-reduce", "all-gather")


def speed_checks(mesh: Mesh, peak_flops: float | None, bandwidth: float | None) -> Iterator[Check]:
    """Products and memory of a device, and exchanges along the axes of the mesh that have several.

    Args:
      mesh: also that of `jax.set_mesh`.
      peak_flops: bfloat16 FLOP/s of a device; None: not known.
      bandwidth: bytes a second of a device's memory; None: not known.
    """
    yield Check("products", functools.partial(_products, mesh, peak_flops))
    yield Check("memory", functools.partial(_memory, mesh, bandwidth))
    for axis in AXES:
        if mesh.shape[axis] > 1:
            for op in EXCHANGES:
                yield Check(f"{op} over {axis}", functools.partial(exchange, mesh, axis, op))


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


def _products(mesh: Mesh, peak: float | None) -> Finding:
    size = 8192 if mesh.devices.flat[0].platform != "cpu" else 1024
    dtype = "bfloat16" if mesh.devices.flat[0].platform != "cpu" else "float32"
    x = _on_each_device(mesh, (size, size), dtype)
    product = jax.jit(lambda x: jnp.einsum("nij,njk->nik", x, x))
    flops = 2 * size**3 / seconds_of(lambda: product(x))
    share = f", {flops / peak:.0%} of its peak" if peak else ""
    text = f"{flops / 1e12:.3g} TFLOP/s a device in {dtype}{share}"
    return Finding("products", Verdict.OK, text, {"flops_per_second": flops})


def _memory(mesh: Mesh, known: float | None) -> Finding:
    megabytes = 512 if mesh.devices.flat[0].platform != "cpu" else 64
    x = _on_each_device(mesh, (megabytes << 18,), "float32")
    add = jax.jit(lambda x: x + 1)
    rate = 2 * (megabytes << 20) / seconds_of(lambda: add(x))  # read and written
    share = f", {rate / known:.0%} of what it has" if known else ""
    text = f"{rate / 1e9:.3g} GB/s a device{share}"
    return Finding("memory", Verdict.OK, text, {"bytes_per_second": rate})


def exchange(mesh: Mesh, axis: str, op: str) -> Finding:
    """One exchange of 64 MiB a device (8 on CPUs) along an axis."""
    devices = mesh.shape[axis]
    megabytes = 64 if mesh.devices.flat[0].platform != "cpu" else 8
    rows = (megabytes << 20) // (4 * 128) // devices * devices
    x = _on_each_device(mesh, (rows, 128), "float32")

    def local(x: jax.Array) -> jax.Array:  # [1, rows, 128]
        if op == "all-to-all":
            return lax.all_to_all(x, axis, split_axis=1, concat_axis=1, tiled=True)
        if op == "all-reduce":
            return lax.psum(x, axis)
        return lax.all_gather(x[:, : rows // devices], axis, axis=1, tiled=True)

    spec = PartitionSpec(AXES)
    run = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))
    seconds = seconds_of(lambda: run(x))
    rate = rows * 128 * 4 / seconds
    text = f"{rate / 1e9:.3g} GB/s a device, {1e3 * seconds:.3g} ms for {megabytes} MiB"
    name = f"{op} over {axis}"
    return Finding(name, Verdict.OK, text, {"bytes_per_second": rate, "devices": devices})
