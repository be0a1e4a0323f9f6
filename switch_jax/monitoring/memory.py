"""Measures how much memory a process and its devices use."""

import resource
import sys

import jax
import psutil
from jax.sharding import Mesh

from switch_jax.hardware.tpus import GIB
from switch_jax.runtime.host_memory import host_bytes


def memory_in_use() -> dict[str, float]:
    """Measures memory in GiB: host, resident in this process, and host_peak, the largest so far.

    If the backend reports them, as those of GPUs and TPUs do: device_peak, the most that any of
    this process's devices ever held, and device_limit, the memory of the smallest of them.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024  # bytes; Linux counts KiB
    resident = psutil.Process().memory_info().rss
    usage = {"host": resident / GIB, "host_peak": unit * peak / GIB}
    if peaks := _device_statistics("peak_bytes_in_use"):
        usage["device_peak"] = max(peaks) / GIB
    if limits := _device_statistics("bytes_limit"):
        usage["device_limit"] = min(limits) / GIB
    return usage


def mesh_memory(mesh: Mesh) -> int:
    """Returns the bytes of all devices of a mesh; CPU devices share the memory of a machine."""
    limits = _device_statistics("bytes_limit")
    return min(limits) * mesh.size if limits else host_bytes()


def _device_statistics(statistic: str) -> list[int]:
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return [known[statistic] for known in stats if statistic in known]
