"""XLA's compiler for NVIDIA GPUs on a machine without one: devices of a cluster, and memory."""

import dataclasses
import os
import sys
import time
from typing import Any

import jax
from jax.experimental import topologies

from switch_jax.errors import UserError
from switch_jax.gpus import GPUS_OF_A_SERVER, Gpu, GpuCluster, has_cuda_plugin
from switch_jax.planning.program_memory import ProgramMemory, program_memory

# What is tried out on a GPU, to find the fastest form of a product, is not tried here.
_OPTIONS: dict[str, str | bool] = {
    "xla_gpu_autotune_level": "0",
    "xla_gpu_enable_triton_gemm": False,
}


@dataclasses.dataclass(frozen=True)
class GpuMemory(ProgramMemory):
    """The memory that a program needs, and what it calls.

    Attributes:
      cudnn_calls: the number of calls of cuDNN's attention, backward ones too.
      seconds: of compilation.
    """

    cudnn_calls: int
    seconds: float


def devices(cluster: GpuCluster) -> list[Any]:
    """The devices of a cluster, for a mesh to compile for.

    Raises:
      UserError: jax's CUDA plugin is not installed.
    """
    if not has_cuda_plugin():
        raise UserError(
            "planning for GPUs needs jax's CUDA plugin, but no GPU, and it is not installed: "
            f"{sys.executable} -m pip install 'switch_jax[cuda]', or in the pinned set-up of a "
            "checkout: .venv/bin/pip install -c requirements.txt 'jax[cuda12]'"
        )
    # Else the plugin asks CUDA for the versions of its libraries, and there may be no CUDA.
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    jax.config.update("jax_platforms", "cpu")
    of_a_server = min(cluster.devices, GPUS_OF_A_SERVER)
    topology = topologies.get_topology_desc(
        platform="cuda",
        topology_name=cluster.name,
        topology=f"1x{cluster.servers}x{of_a_server}",  # partitions, hosts, GPUs of a host
        target_config=_target_config(cluster.gpu),
    )
    return list(topology.devices)


def _target_config(gpu: Gpu) -> str:
    """XLA's description of a GPU, a stream_executor.GpuTargetConfigProto as text."""
    return f"""
        gpu_device_info {{
          threads_per_block_limit: 1024
          threads_per_warp: 32
          threads_per_core_limit: 2048
          thread_dim_limit_x: 1024
          thread_dim_limit_y: 1024
          thread_dim_limit_z: 64
          block_dim_limit_x: 2147483647
          block_dim_limit_y: 65535
          block_dim_limit_z: 65535
          registers_per_core_limit: 65536
          registers_per_block_limit: 65536
          shared_memory_per_block: 49152
          shared_memory_per_core: {gpu.shared_memory_bytes}
          shared_memory_per_block_optin: {gpu.shared_memory_of_a_block}
          core_count: {gpu.cores}
          fpus_per_core: {gpu.units_per_core}
          clock_rate_ghz: {gpu.clock_ghz}
          memory_bandwidth: {gpu.memory_bandwidth}
          l2_cache_size: {gpu.cache_bytes}
          device_memory_size: {gpu.memory_bytes}
          cuda_compute_capability {{ major: {gpu.compute_capability} }}
        }}
        platform_name: "CUDA"
        dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
        runtime_version {{ major: 12 minor: 8 patch: 0 }}
        device_description_str: "NVIDIA {gpu.device_kind}"
    """


def compile_for_memory(lowered: jax.stages.Lowered) -> GpuMemory:
    """Compiles for the devices of the program's shardings."""
    start = time.monotonic()
    compiled = lowered.compile(compiler_options=_OPTIONS)
    seconds = time.monotonic() - start
    text = compiled.as_text()
    if text is None:
        raise RuntimeError("this compiler does not print its program")
    calls = text.count('custom_call_target="__cudnn$fmha')
    return GpuMemory(**vars(program_memory(compiled)), cudnn_calls=calls, seconds=seconds)
