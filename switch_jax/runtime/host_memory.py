"""Measures a host's memory, and sets how the C library keeps it for arrays of CPU devices."""

import ctypes
import os
import platform
from pathlib import Path

import jax

from switch_jax.hardware.tpus import has_accelerator

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def host_bytes() -> int:
    """Returns the memory of this machine, or of its container if that may use less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # not in a Linux container, or one without a limit
        return machine
    return min(machine, limit)


def keep_freed_memory() -> None:
    """Lets each step reuse the memory that the step before it freed, if there are only CPUs.

    By default glibc returns large blocks to the system, which clears every page when it is used
    again; that costs a fifth of a step. Call this before anything starts threads: all of them then
    share one arena, since only the first arena can hold large blocks.
    """
    if _uses_glibc_memory():
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1)):
            mallopt(parameter, value)


def return_freed_memory() -> None:
    """Returns the memory that is now kept to the system, as after compilation, which needs much."""
    if _uses_glibc_memory():
        ctypes.CDLL(None).malloc_trim(0)


def _uses_glibc_memory() -> bool:
    return platform.libc_ver()[0] == "glibc" and only_cpus()


def only_cpus() -> bool:
    """Says whether JAX will have CPUs alone, without starting it."""
    platforms = jax.config.jax_platforms  # type: ignore[attr-defined]  # made at run time
    if platforms:
        return platforms == "cpu"
    return not has_accelerator()
