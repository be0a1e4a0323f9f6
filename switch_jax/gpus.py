"""NVIDIA's GPUs: what each has, and how `switch_jax plan` names several.

Sources: peaks are those of NVIDIA's data sheets of A100 SXM 80 GB, H100 SXM and H200 SXM, bfloat16
without sparsity. All else is from XLA's descriptions of these GPUs (openxla/xla, Apache 2.0,
xla/backends/gpu/target_config/specs).
"""

import dataclasses
import importlib.util
import math
import re

from switch_jax.errors import UserError, did_you_mean

GPUS_OF_A_SERVER = 8
_MAX_GPUS = 8192


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One kind of GPU.

    Attributes:
      name: the first part of a cluster's name, as 'h100'.
      device_kind: what JAX calls it, or the part of this that all its forms share.
      peak_flops: bfloat16 FLOP/s.
      memory_bytes, memory_bandwidth: bytes, and bytes per second.
      compute_capability: its major number.
      cores: streaming multiprocessors.
      units_per_core: float32 units of each.
      clock_ghz: of the cores.
      cache_bytes: of the L2 cache.
      shared_memory_bytes: of each core.
      shared_memory_of_a_block: the most that a block can ask for, in bytes.
    """

    name: str
    device_kind: str
    peak_flops: float
    memory_bytes: int
    memory_bandwidth: int
    compute_capability: int
    cores: int
    units_per_core: int
    clock_ghz: float
    cache_bytes: int
    shared_memory_bytes: int
    shared_memory_of_a_block: int


_A100 = Gpu(
    name="a100",
    device_kind="A100",
    peak_flops=312e12,
    memory_bytes=85_100_068_864,
    memory_bandwidth=2_039_040_000_000,
    compute_capability=8,
    cores=108,
    units_per_core=64,
    clock_ghz=1.41,
    cache_bytes=41_943_040,
    shared_memory_bytes=167_936,
    shared_memory_of_a_block=166_912,
)
_H100 = Gpu(
    name="h100",
    device_kind="H100 80GB HBM3",
    peak_flops=989e12,
    memory_bytes=84_942_979_072,
    memory_bandwidth=3_352_320_000_000,
    compute_capability=9,
    cores=132,
    units_per_core=128,
    clock_ghz=1.98,
    cache_bytes=52_428_800,
    shared_memory_bytes=233_472,
    shared_memory_of_a_block=232_448,
)
_H200 = dataclasses.replace(
    _H100,
    name="h200",
    device_kind="H200",
    memory_bytes=151_397_597_184,
    memory_bandwidth=4_800_000_000_000,
)
GPUS = {gpu.name: gpu for gpu in (_A100, _H100, _H200)}


@dataclasses.dataclass(frozen=True)
class GpuCluster:
    """Equal GPUs, eight in each server.

    Attributes:
      name: as the user wrote it, for example 'h100-8'.
      gpu: of which kind they are.
      devices: how many.
    """

    name: str
    gpu: Gpu
    devices: int

    @property
    def servers(self) -> int:
        return math.ceil(self.devices / GPUS_OF_A_SERVER)


def has_cuda_plugin() -> bool:
    """Whether jax's plugin for NVIDIA's GPUs is installed; there may be no GPU."""
    return any(map(importlib.util.find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin")))


def is_gpu_name(name: str) -> bool:
    """Whether this is meant as the name of a cluster, and not of a TPU slice."""
    return re.match("([0-9]+x)?(?!v|tpu)[a-z].*[0-9]", name.lower()) is not None


def parse_cluster(name: str) -> GpuCluster:
    """Reads the name of a cluster: 'h100-8'.

    Raises:
      UserError: no such GPU, or a number that fills no server.
    """
    known = ", ".join(f"{gpu}-1" for gpu in GPUS) + f" up to h100-{_MAX_GPUS}"
    kind, _, number = name.partition("-")
    if kind not in GPUS or not re.fullmatch("[1-9][0-9]{0,4}", number):
        near = did_you_mean(kind, list(GPUS)) if kind not in GPUS else ""
        others = "TPUs are named as in v5p-8, CPUs as in cpu-8"
        raise UserError(f"no GPUs {name!r}; {near}known are {known}; {others}")
    devices = int(number)
    if devices > _MAX_GPUS or (devices > GPUS_OF_A_SERVER and devices % GPUS_OF_A_SERVER):
        raise UserError(
            f"{name!r}: a server has {GPUS_OF_A_SERVER} GPUs; write 1 to {GPUS_OF_A_SERVER}, or a "
            f"multiple of {GPUS_OF_A_SERVER} up to {_MAX_GPUS}"
        )
    return GpuCluster(name, GPUS[kind], devices)
