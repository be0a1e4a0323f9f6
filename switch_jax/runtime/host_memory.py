"""The memory of a host, and how the C library keeps it, which holds the arrays of CPU devices."""

import ctypes
import os
import platform
from pathlib import Path

import jax

from switch_jax.hardware.tpus import has_accelerator

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def host_bytes() -> int:
    """Memory of this machine, or of its container if that may use less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # not in a Linux container, or one without a limit
        return machine
    return min(machine, limit)


def keep_freed_memory() -> None:
    """Lets each step reuse the memory that the step before it freed, if there are only CPUs.

    By default glibc returns large blocks to the system, which clears every page when it is touched
    again; that takes a fifth of a step. Call this before anything starts threads: they all share
    one arena then, since only the first arena can hold large blocks.
    """
    if _uses_glibc_memory():
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1)):
            mallopt(parameter, value)


def return_freed_memory() -> None:
    """Returns the memory that is kept now to the system, as after compilation, which takes much."""
    if _uses_glibc_memory():
        ctypes.CDLL(None).malloc_trim(0)


def _uses_glibc_memory() -> bool:
    return platform.libc_ver()[0] == "glibc" and only_cpus()


def only_cpus() -> bool:
    """Whether JAX will have CPUs alone; it is not started by this."""
    platforms = jax.config.jax_platforms  # type: ignore[attr-defined]  # made at run time
    if platforms:
        return platforms == "cpu"
    return not has_accelerator()
