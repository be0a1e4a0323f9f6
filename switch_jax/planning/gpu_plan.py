"""A plan for NVIDIA GPUs: the memory of a run's training step, and the least time it can take."""

import dataclasses
from typing import Any

import jax

from switch_jax.config import Config
from switch_jax.errors import UserError
from switch_jax.gpus import GpuCluster
from switch_jax.partitioning.mesh import make_mesh, mesh_shape
from switch_jax.planning.gpu_compiler import GpuMemory, compile_for_memory, devices
from switch_jax.planning.measured import Measured
from switch_jax.planning.step_sizes import StepSizes, step_sizes
from switch_jax.train_step.lowering import lower_train_step
from switch_jax.train_step.microbatches import check_batch
from switch_jax.train_step.state import abstract_state

# The rest is for CUDA itself, cuDNN and NCCL. JAX takes three quarters unless told to take more.
USABLE = 0.95
JAX_TAKES = 0.75


@dataclasses.dataclass(frozen=True)
class GpuPlan(StepSizes):
    """The plan for one mesh on one cluster, with the sizes of its step (`StepSizes`).

    Attributes:
      cluster: the GPUs.
      memory: of each GPU.
      measured: a step on such GPUs; None: none is known.
    """

    cluster: GpuCluster
    memory: GpuMemory
    measured: Measured | None = None

    @property
    def hbm_bytes(self) -> int:
        """Memory that each GPU needs."""
        return self.memory.peak

    @property
    def hbm_limit_bytes(self) -> int:
        """Memory that a program can have of each GPU."""
        return int(USABLE * self.cluster.gpu.memory_bytes)

    @property
    def fits(self) -> bool:
        """Whether the program fits in memory."""
        return self.hbm_bytes <= self.hbm_limit_bytes

    @property
    def needs_fraction(self) -> bool:
        """Whether it fits only if JAX may take more than it does by default."""
        return self.fits and self.hbm_bytes > JAX_TAKES * self.cluster.gpu.memory_bytes

    @property
    def least_seconds(self) -> float:
        """Of a step, if all its products ran at the peak of the GPUs."""
        return self.model_flops / self.cluster.devices / self.cluster.gpu.peak_flops

    @property
    def step_seconds(self) -> float | None:
        """Of a step whose products are as fast as those of the measured one; None: not known."""
        if self.measured is None:
            return None
        return self.model_flops / self.cluster.devices / self.measured.flops_per_second

    def as_json(self) -> dict[str, Any]:
        """The plan for programs."""
        return {
            "topology": self.cluster.name,
            **self.sizes_as_json(),
            "hbm_bytes_per_chip": self.hbm_bytes,
            "hbm_limit_bytes": self.hbm_limit_bytes,
            "fits": self.fits,
            "hbm_arguments_bytes": self.memory.arguments,
            "hbm_outputs_bytes": self.memory.outputs - self.memory.aliased,
            "hbm_temporaries_bytes": self.memory.temporaries,
            "hbm_program_bytes": self.memory.code,
            "cudnn_calls": self.memory.cudnn_calls,
            "least_seconds": self.least_seconds,
            "step_seconds_model": self.step_seconds,
            "compile_seconds": self.memory.seconds,
            "measured": self.measured and self.measured.as_json(),
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
    check_batch(config, mesh.shape)
    with jax.set_mesh(mesh):
        state = abstract_state(config, mesh)
        memory = compile_for_memory(lower_train_step(config, mesh, state))
    sizes = step_sizes(config, mesh, state)
    return GpuPlan(**vars(sizes), cluster=cluster, memory=memory, measured=measured)
