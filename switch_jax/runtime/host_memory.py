"""The C library's memory, in which the arrays of a step lie where the devices are CPUs."""

import ctypes
import platform
from pathlib import Path

import jax

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
# Of TPUs, NVIDIA's and AMD's GPUs, as far as this machine lets us use them.
_DEVICES = Path("/dev")
_ACCELERATORS = ("accel[0-9]*", "vfio/[0-9]*", "nvidia*", "kfd", "dxg")


def keep_freed_memory() -> None:
    """Lets each step have the memory that the step before it freed, where there are only CPUs.

    By default glibc returns large blocks to the system, which clears every page of them when it is
    touched again: that is a fifth of a step. To be called before anything starts threads: all share
    one arena then, since no other can hold large blocks.
    """
    if _is_ours():
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1)):
            mallopt(parameter, value)


def return_freed_memory() -> None:
    """Gives back what is kept now: between compilation, which takes much, and the first step."""
    if _is_ours():
        ctypes.CDLL(None).malloc_trim(0)


def _is_ours() -> bool:
    return platform.libc_ver()[0] == "glibc" and _only_cpus()


def _only_cpus() -> bool:
    platforms = jax.config.jax_platforms  # type: ignore[attr-defined]  # made at run time
    if platforms:
        return platforms == "cpu"
    return not any(match for pattern in _ACCELERATORS for match in _DEVICES.glob(pattern))
