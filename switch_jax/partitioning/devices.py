"""The devices of the mesh: their platform, and what their compiler and kernels can do."""

from typing import Any

import jax
from jax.experimental.pallas import tpu as pltpu

from switch_jax.hardware.tpus import tpu_generation

_MUCH_VMEM = 64 * 2**20  # bytes: v5e, v5p and all since


def platform() -> str:
    """'tpu', 'gpu' or 'cpu': the platform of the mesh set by `jax.set_mesh`.

    It may differ from this machine's platform: a program can be compiled for other devices.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.devices()[0].platform if device is None else device.platform


def device_kind() -> str:
    """What JAX calls the devices of the mesh set by `jax.set_mesh`, as 'NVIDIA H100 80GB HBM3'."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.devices()[0].device_kind if device is None else device.device_kind


def has_kernels() -> bool:
    """Whether the mesh's devices run our kernels: TPUs from v4 on.

    Up to v3, kernels cannot multiply bfloat16.
    """
    return platform() == "tpu" and pltpu.get_tpu_info().generation >= 4


def has_async_all_to_all() -> bool:
    """Whether the mesh's devices can compute while an all-to-all runs: TPUs, but not a v5e.

    For a v5e the compiler refuses this where the expert axis is not all devices of one slice.
    Programs need `compiler_options` for it.
    """
    if platform() != "tpu":
        return False
    generation = tpu_generation(device_kind())
    return generation is None or generation.name != "v5e"


def compiler_options() -> dict[str, Any]:
    """Options for the compiler of the mesh's devices, beyond its defaults."""
    if platform() != "tpu":
        return {}
    options: dict[str, Any] = {}
    if has_async_all_to_all():
        # All-to-alls run while other operations compute, where there are some that do not need
        # their result: docs/performance.md says how much that saves.
        options["xla_tpu_enable_async_all_to_all"] = True
    if pltpu.get_tpu_info().vmem_capacity_bytes >= _MUCH_VMEM:
        # Tiles half as large again as by default take 2 % fewer estimated cycles of a layer on v5p.
        options["xla_tpu_scoped_vmem_limit_kib"] = 24 * 1024
    return options


def options_for_little_memory() -> dict[str, Any]:
    """Options to draw many arrays one after another, where that takes less memory than by default.

    By default, a CPU draws many at once, which takes more memory than a step.
    """
    if platform() == "cpu":
        return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    return {}
