"""The memory of the hosts beside the chips."""

from switch_jax.hardware.tpus import GIB, Slice

# For Python with JAX and TensorFlow, the input pipeline with its shuffle buffers, and the compiler.
# `memory_gib` of a small run with DATA_STREAMS = 8 has 1.7 GiB; compiling Switch-Base for v5p-256
# takes 6.1 (the largest resident memory of `switch_jax plan`).
_PROCESS_BYTES = 16 * GIB


def host_bytes(device_bytes: int, hardware: Slice) -> int:
    """Estimates the memory that a run takes of each host, generously.

    A checkpoint is copied to the host before it is written, and on its way back.

    Args:
      device_bytes: of the state, and of a teacher, on each device.
    """
    return _PROCESS_BYTES + device_bytes * hardware.devices_per_host
