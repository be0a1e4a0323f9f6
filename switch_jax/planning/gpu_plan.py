"""A plan for NVIDIA GPUs: the memory of a run's training step, and the least time it can take."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from switch_jax.config import Config
from switch_jax.gpus import GpuCluster
from switch_jax.model import abstract_parameters
from switch_jax.model.flops import parameter_count
from switch_jax.model.groups import Groups
from switch_jax.partitioning.mesh import make_mesh, mesh_shape
from switch_jax.partitioning.placing import total_bytes
from switch_jax.planning.gpu_compiler import GpuMemory, compile_for_memory, devices
from switch_jax.train_step.flops import step_flops
from switch_jax.train_step.lowering import lower_train_step
from switch_jax.train_step.microbatches import check_batch, routing_groups
from switch_jax.train_step.state import abstract_state

# The rest is for CUDA itself, cuDNN and NCCL. JAX takes three quarters unless told to take more.
USABLE = 0.95
JAX_TAKES = 0.75


@dataclasses.dataclass(frozen=True)
class GpuPlan:
    """The plan for one mesh on one cluster.

    Attributes:
      cluster: the GPUs.
      mesh: devices along (data, expert, model).
      parameters: their number in the whole model.
      parameter_bytes, optimizer_bytes, teacher_bytes: of one copy, however it is sharded.
      memory: of each GPU.
      model_flops: of a step on all GPUs together; see `train_step.flops.step_flops`.
      tokens: input and target tokens of a step, padding included.
      groups: the routing groups of each stack; empty for a dense model.
    """

    cluster: GpuCluster
    mesh: tuple[int, int, int]
    parameters: int
    parameter_bytes: int
    optimizer_bytes: int
    teacher_bytes: int
    memory: GpuMemory
    model_flops: float
    tokens: int
    groups: Mapping[str, Groups]

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

    def as_json(self) -> dict[str, Any]:
        """The plan for programs."""
        return {
            "topology": self.cluster.name,
            "mesh": dict(zip(("data", "expert", "model"), self.mesh, strict=True)),
            "parameters": self.parameters,
            "parameter_bytes": self.parameter_bytes,
            "optimizer_bytes": self.optimizer_bytes,
            "teacher_bytes": self.teacher_bytes,
            "routing_groups": {stack: groups._asdict() for stack, groups in self.groups.items()},
            "hbm_bytes_per_chip": self.hbm_bytes,
            "hbm_limit_bytes": self.hbm_limit_bytes,
            "fits": self.fits,
            "hbm_arguments_bytes": self.memory.arguments,
            "hbm_outputs_bytes": self.memory.outputs - self.memory.aliased,
            "hbm_temporaries_bytes": self.memory.temporaries,
            "cudnn_calls": self.memory.cudnn_calls,
            "model_flops": self.model_flops,
            "least_seconds": self.least_seconds,
            "tokens_per_step": self.tokens,
            "compile_seconds": self.memory.seconds,
        }


def make_gpu_plan(config: Config, cluster: GpuCluster) -> GpuPlan:
    """Compiles the training step of `switch_jax train` for GPUs.

    Raises:
      UserError: the config does not fit the cluster, or jax's CUDA plugin is missing.
    """
    # In a run each server is what JAX calls a slice. These devices say that they are one slice.
    mesh_shape(config.mesh, cluster.devices, cluster.servers, "gpu")
    mesh = make_mesh(config.mesh, devices(cluster))
    check_batch(config, mesh.shape)
    with jax.set_mesh(mesh):
        state = abstract_state(config, mesh)
        memory = compile_for_memory(lower_train_step(config, mesh, state))
    teacher = config.teacher_model
    return GpuPlan(
        cluster=cluster,
        mesh=mesh.devices.shape,
        parameters=parameter_count(config.model),
        parameter_bytes=total_bytes(state.parameters),
        optimizer_bytes=total_bytes(state.optimizer),
        teacher_bytes=0 if teacher is None else total_bytes(abstract_parameters(teacher)),
        memory=memory,
        model_flops=step_flops(config),
        tokens=config.tokens_per_step,
        groups=routing_groups(config, mesh.shape),
    )
