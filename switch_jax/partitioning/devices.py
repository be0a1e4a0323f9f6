"""The devices of the mesh: their platform, and what they can do."""

import jax
from jax.experimental.pallas import tpu as pltpu

from switch_jax.hardware.tpus import tpu_generation


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
    Programs need the options of `compiler_options` for it.
    """
    return platform() == "tpu" and not _is_v5e()


def gathers_within_products() -> bool:
    """Whether the compiler of the mesh's devices can gather weights within matrix products: a v5e.

    For other TPUs it warns of wrong results and of steps that never end, and since libtpu 0.0.50
    it refuses. Programs need the options of `compiler_options` for it.
    """
    return platform() == "tpu" and _is_v5e()


def _is_v5e() -> bool:
    generation = tpu_generation(device_kind())
    return generation is not None and generation.name == "v5e"
