"""What all plans say of a training step, known without compiling it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from switch_jax.config import Config
from switch_jax.model import abstract_parameters
from switch_jax.model.flops import parameter_count
from switch_jax.model.groups import Groups
from switch_jax.partitioning.placing import total_bytes
from switch_jax.train_step.flops import step_flops
from switch_jax.train_step.microbatches import routing_groups
from switch_jax.train_step.state import TrainState


@dataclasses.dataclass(frozen=True)
class StepSizes:
    """Sizes of a training step on a mesh.

    Attributes:
      mesh: devices along (data, expert, model).
      parameters: their number in the whole model.
      parameter_bytes, optimizer_bytes: of one copy, however it is sharded.
      teacher_bytes: of one copy of the teacher's parameters; 0: there is no teacher.
      groups: the routing groups of each stack; empty for a dense model.
      model_flops: of a step on all devices together; see `train_step.flops.step_flops`.
      tokens: input and target tokens of a step, padding included.
    """

    mesh: tuple[int, int, int]
    parameters: int
    parameter_bytes: int
    optimizer_bytes: int
    teacher_bytes: int
    groups: Mapping[str, Groups]
    model_flops: float
    tokens: int

    def sizes_as_json(self) -> dict[str, Any]:
        """The sizes for programs."""
        return {
            "mesh": dict(zip(("data", "expert", "model"), self.mesh, strict=True)),
            "parameters": self.parameters,
            "parameter_bytes": self.parameter_bytes,
            "optimizer_bytes": self.optimizer_bytes,
            "teacher_bytes": self.teacher_bytes,
            "routing_groups": {stack: groups._asdict() for stack, groups in self.groups.items()},
            "model_flops": self.model_flops,
            "tokens_per_step": self.tokens,
        }


def step_sizes(config: Config, mesh: Mesh, state: TrainState) -> StepSizes:
    """The sizes of a run's training step.

    Args:
      config: the run.
      mesh: its devices.
      state: shapes and shardings, see `abstract_state`.
    """
    teacher = config.teacher_model
    return StepSizes(
        mesh=mesh.devices.shape,
        parameters=parameter_count(config.model),
        parameter_bytes=total_bytes(state.parameters),
        optimizer_bytes=total_bytes(state.optimizer),
        teacher_bytes=0 if teacher is None else total_bytes(abstract_parameters(teacher)),
        groups=routing_groups(config, mesh.shape),
        model_flops=step_flops(config),
        tokens=config.tokens_per_step,
    )
