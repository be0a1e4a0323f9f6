"""How much memory a process and its devices use."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import jax
from jax.sharding import Mesh

from switch_jax.hardware.tpus import GIB
from switch_jax.runtime.host_memory import host_bytes


def memory_in_use() -> dict[str, float]:
    """Memory of this process, in GiB: host, resident, and host_peak, its largest value so far.

    Where the backend reports them, as those of GPUs and TPUs do: device_peak, the most that any of
    this process's devices ever held, and device_limit, the memory of the smallest of them.
    """
    usage = {"host": _resident_bytes() / GIB, "host_peak": _peak_resident_bytes() / GIB}
    if peaks := _of_devices("peak_bytes_in_use"):
        usage["device_peak"] = max(peaks) / GIB
    if limits := _of_devices("bytes_limit"):
        usage["device_limit"] = min(limits) / GIB
    return usage


def mesh_memory(mesh: Mesh) -> int:
    """Bytes that all devices of a mesh hold together; CPU devices share the memory of a machine."""
    limits = _of_devices("bytes_limit")
    return min(limits) * mesh.size if limits else host_bytes()


def _of_devices(statistic: str) -> list[int]:
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return [known[statistic] for known in stats if statistic in known]


def _resident_bytes() -> int:
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    # macOS has no /proc, but ps, which counts KiB.
    ps = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True)
    return int(ps.stdout) * 1024


def _peak_resident_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB
