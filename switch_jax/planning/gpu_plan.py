"""A plan for NVIDIA GPUs: the memory of a run's training step, and the least time it can take."""

import dataclasses
from typing import Any

from switch_jax.config import Config
from switch_jax.errors import UserError
from switch_jax.gpus import GpuCluster
from switch_jax.partitioning.mesh import make_mesh, mesh_shape
from switch_jax.planning.gpu_compiler import GpuMemory, compile_for_memory, devices
from switch_jax.planning.measured import Measured
from switch_jax.planning.step_plan import StepPlan, lowered_step

# The rest is for CUDA itself, cuDNN and NCCL. JAX takes three quarters unless told to take more.
USABLE = 0.95
JAX_TAKES = 0.75


@dataclasses.dataclass(frozen=True, kw_only=True)
class GpuPlan(StepPlan):
    """The plan for one mesh on one cluster.

    Attributes:
      memory: of each GPU.
    """

    hardware: GpuCluster
    memory: GpuMemory

    @property
    def needs_fraction(self) -> bool:
        """Whether it fits only if JAX may take more than it does by default."""
        return self.fits and self.hbm_bytes > JAX_TAKES * self.hardware.gpu.memory_bytes

    @property
    def least_seconds(self) -> float:
        """Of a step, if all its products ran at the peak of the GPUs."""
        return self.model_flops / self.hardware.devices / self.hardware.gpu.peak_flops

    @property
    def step_seconds(self) -> float | None:
        """Of a step whose products are as fast as those of the measured one; None: not known."""
        if self.measured is None:
            return None
        return self.model_flops / self.hardware.devices / self.measured.flops_per_second

    def costs_as_json(self) -> dict[str, Any]:
        """What the memory is for, and the least time."""
        return {
            "hbm_arguments_bytes": self.memory.arguments,
            "hbm_outputs_bytes": self.memory.outputs - self.memory.aliased,
            "hbm_temporaries_bytes": self.memory.temporaries,
            "hbm_program_bytes": self.memory.code,
            "cudnn_calls": self.memory.cudnn_calls,
            "least_seconds": self.least_seconds,
        }


def make_gpu_plan(config: Config, cluster: GpuCluster, measured: Measured | None = None) -> GpuPlan:
    """Compiles the training step of `switch_jax train` for GPUs.

    Args:
      config: the run.
      cluster: the GPUs.
      measured: a step on such GPUs.

    Raises:
      UserError: the config does not fit the cluster, other devices were measured, or jax's CUDA
        plugin is missing.
    """
    if measured and cluster.gpu.device_kind not in measured.device_kind:
        raise UserError(
            f"--measured={measured.file} is of {measured.device_kind}, and {cluster.name} has GPUs "
            f"of {cluster.gpu.device_kind}: give a file of `switch_jax doctor` on those"
        )
    # In a run each server is what JAX calls a slice. These devices say that they are one slice.
    mesh_shape(config.mesh, cluster.devices, cluster.servers, "gpu")
    mesh = make_mesh(config.mesh, devices(cluster))
    sizes, lowered = lowered_step(config, mesh)
    memory = compile_for_memory(lowered)
    return GpuPlan(
        **vars(sizes),
        hardware=cluster,
        hbm_bytes=memory.peak,
        hbm_limit_bytes=int(USABLE * cluster.gpu.memory_bytes),
        memory=memory,
        compile_seconds=memory.seconds,
        measured=measured,
    )
