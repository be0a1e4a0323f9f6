"""XLA's options for the compiler of the mesh's devices, which are given to `jax.jit`."""

from typing import Any

from jax.experimental.pallas import tpu as pltpu

from switch_jax.partitioning.devices import (
    gathers_within_products,
    has_async_all_to_all,
    platform,
)

_MUCH_VMEM = 64 * 2**20  # bytes: v5e, v5p and all since
# By default, a gather of weights over the axes of the batch is a sum of arrays that are zero but
# for a device's own part, and devices wait for it. With these, on v5e, it runs beside products.
_GATHERS_WITHIN_PRODUCTS = (
    "xla_enable_async_all_gather",
    "xla_tpu_prefer_async_allgather_to_allreduce",
    "xla_tpu_enable_async_collective_fusion",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather",
)


def compiler_options(fully_sharded_weights: bool = False) -> dict[str, Any]:
    """Options for the compiler of the mesh's devices, beyond its defaults.

    `fully_sharded_weights` is that of the program's `MeshConfig`.
    """
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
    if fully_sharded_weights and gathers_within_products():
        options |= dict.fromkeys(_GATHERS_WITHIN_PRODUCTS, True)
    return options


def options_for_little_memory() -> dict[str, Any]:
    """Options to draw many arrays one after another, where that takes less memory than by default.

    By default, a CPU draws many at once, which takes more memory than a step.
    """
    if platform() == "cpu":
        return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    return {}
