"""What the plans for all kinds of devices say, and the step that they compile."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from switch_jax.config import Config
from switch_jax.gpus import GpuCluster
from switch_jax.hardware import Cpus, Slice
from switch_jax.model import abstract_parameters
from switch_jax.model.flops import parameter_count
from switch_jax.model.groups import Groups
from switch_jax.partitioning.placing import total_bytes
from switch_jax.planning.measured import Measured
from switch_jax.train_step.flops import step_flops
from switch_jax.train_step.lowering import lower_train_step
from switch_jax.train_step.microbatches import check_batch, routing_groups
from switch_jax.train_step.state import TrainState, abstract_state


@dataclasses.dataclass(frozen=True)
class StepSizes:
    """Sizes of a training step on a mesh, known without compiling it.

    Attributes:
      mesh: devices along (data, expert, model).
      parameters: their number in the whole model.
      parameter_bytes, optimizer_bytes: of one copy, however it is sharded.
      teacher_bytes: of one copy of the teacher's parameters; 0: there is no teacher.
      groups: the routing groups of each stack; empty for a dense model.
      model_flops: of a step on all devices together; see `train_step.flops.step_flops`.
      tokens: input and target tokens of a step, padding included.
      train_steps: of the run.
    """

    mesh: tuple[int, int, int]
    parameters: int
    parameter_bytes: int
    optimizer_bytes: int
    teacher_bytes: int
    groups: Mapping[str, Groups]
    model_flops: float
    tokens: int
    train_steps: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepPlan(StepSizes, abc.ABC):
    """A plan of a training step for one mesh of devices.

    Attributes:
      hardware: the devices.
      hbm_bytes: memory that each of them needs (of a TPU: each chip).
      hbm_limit_bytes: memory that each of them has for programs.
      compile_seconds: on this machine.
      measured: what `switch_jax doctor` found on such devices; None: nothing is known.
    """

    hardware: Slice | GpuCluster | Cpus
    hbm_bytes: int
    hbm_limit_bytes: int
    compile_seconds: float
    measured: Measured | None = None

    @property
    def fits(self) -> bool:
        """Whether the program fits in memory."""
        return self.hbm_bytes <= self.hbm_limit_bytes

    @property
    @abc.abstractmethod
    def step_seconds(self) -> float | None:
        """The model of the step's time; None: there is none."""

    @property
    def tokens_per_second(self) -> float | None:
        """Input and target tokens, in the model of the step's time."""
        return self.tokens / self.step_seconds if self.step_seconds else None

    @property
    def days(self) -> float | None:
        """Days that the run's steps take, in the model of the step's time."""
        return self.days_of(self.train_steps)

    def days_of(self, steps: float) -> float | None:
        """Days that so many steps take."""
        return steps * self.step_seconds / 86400 if self.step_seconds else None

    @abc.abstractmethod
    def costs_as_json(self) -> dict[str, Any]:
        """What only such devices have, for programs."""

    def as_json(self) -> dict[str, Any]:
        """The plan for programs; what is not known is None."""
        return {
            "topology": self.hardware.name,
            "mesh": dict(zip(("data", "expert", "model"), self.mesh, strict=True)),
            "parameters": self.parameters,
            "parameter_bytes": self.parameter_bytes,
            "optimizer_bytes": self.optimizer_bytes,
            "teacher_bytes": self.teacher_bytes,
            "routing_groups": {stack: groups._asdict() for stack, groups in self.groups.items()},
            "model_flops": self.model_flops,
            "tokens_per_step": self.tokens,
            "hbm_bytes_per_chip": self.hbm_bytes,
            "hbm_limit_bytes": self.hbm_limit_bytes,
            "fits": self.fits,
            **self.costs_as_json(),
            "step_seconds_model": self.step_seconds,
            "tokens_per_second": self.tokens_per_second,
            "train_steps": self.train_steps,
            "days": self.days,
            "compile_seconds": self.compile_seconds,
            "measured": self.measured and self.measured.as_json(),
        }


def lowered_step(config: Config, mesh: Mesh) -> tuple[StepSizes, jax.stages.Lowered]:
    """The sizes of a run's training step, and its program.

    Raises:
      UserError: the batch does not divide over the mesh.
    """
    check_batch(config, mesh.shape)
    with jax.set_mesh(mesh):
        state = abstract_state(config, mesh)
        return _sizes(config, mesh, state), lower_train_step(config, mesh, state)


def _sizes(config: Config, mesh: Mesh, state: TrainState) -> StepSizes:
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
        train_steps=config.run.train_steps,
    )
