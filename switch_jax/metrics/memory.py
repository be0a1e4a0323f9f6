"""How much memory a process and its devices use."""

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import jax
from jax.sharding import Mesh

from switch_jax.hardware import GIB
from switch_jax.runtime.host_memory import host_bytes
from switch_jax.runtime.processes import gather

# On Linux: a new id after each start of the machine.
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def memory_in_use() -> dict[str, float]:
    """Memory of this process, in GiB.

    Returns:
      host: resident memory; host_peak: its largest value so far. Where the backend reports them,
      as those of GPUs and TPUs do: device_peak, the most that any of this process's devices ever
      held, and device_limit, the memory of the smallest of them.
    """
    usage = {"host": _resident_bytes() / GIB, "host_peak": _peak_resident_bytes() / GIB}
    devices = [device.memory_stats() or {} for device in jax.local_devices()]
    for name, key, choose in (
        ("device_peak", "peak_bytes_in_use", max),
        ("device_limit", "bytes_limit", min),
    ):
        values = [stats[key] for stats in devices if key in stats]
        if values:
            usage[name] = choose(values) / GIB
    return usage


def memory_of(mesh: Mesh) -> int:
    """Bytes that all devices of a mesh can hold together; CPU devices share their machine's memory.

    The same on every process; all processes must call it together.
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    limits = [known["bytes_limit"] for known in stats if "bytes_limit" in known]
    found = gather([min(limits, default=None), _machine(), host_bytes()])  # of each process
    limits = [limit for limit, _, _ in found if limit is not None]
    if limits:
        return min(limits) * mesh.size
    used = {device.process_index for device in mesh.devices.flat}
    machines = {machine: size for _, machine, size in (found[index] for index in used)}
    return sum(machines.values())


def _machine() -> str:
    """Identifies this machine, or container; the same for all processes in it."""
    boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
    return f"{platform.node()} {boot}"


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
