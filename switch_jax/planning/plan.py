"""A plan: memory and time of a run's training step on a slice."""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from switch_jax.config import Config
from switch_jax.errors import UserError
from switch_jax.hardware import Slice, equal_slices
from switch_jax.model import abstract_parameters
from switch_jax.model.flops import parameter_count
from switch_jax.model.groups import Groups
from switch_jax.partitioning.mesh import batch_shards, make_mesh
from switch_jax.partitioning.placing import total_bytes
from switch_jax.planning.compiler import Program, compile_program, devices
from switch_jax.planning.costs import Costs, costs_of
from switch_jax.train_step.flops import step_flops
from switch_jax.train_step.lowering import lower_train_step
from switch_jax.train_step.microbatches import check_batch, routing_groups
from switch_jax.train_step.state import TrainState, abstract_state

# Section 4.1: 550k steps of 2^20 tokens. We read them as input tokens: 2048 rows of 512.
PAPER_TOKENS = 576e9
# Of a step's time; other slices are looked at where devices wait longer for exchanges.
MUCH_WAITING = 0.25


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
      slot_flops: `model_flops` with the empty slots of experts.
      tokens: input and target tokens of a step, padding included.
      input_tokens: input tokens of a step.
      train_steps: of the run.
    """

    mesh: tuple[int, int, int]
    parameters: int
    parameter_bytes: int
    optimizer_bytes: int
    teacher_bytes: int
    groups: Mapping[str, Groups]
    model_flops: float
    slot_flops: float
    tokens: int
    input_tokens: int
    train_steps: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan(StepSizes):
    """The plan of a training step for one mesh on one slice.

    Attributes:
      hardware: the slice.
      hbm_bytes: memory that a chip needs.
      hbm_limit_bytes: memory that a chip has for programs.
      host_tokens: tokens of a step that each host reads.
      compile_seconds: on this machine.
      costs: None if it does not fit.
      waiting_elsewhere: seconds of a step that devices wait for exchanges on other slices of the
        same chips, by the slice's name, the least first; those with less waiting than here, and
        only where that is more than MUCH_WAITING of the step.
    """

    hardware: Slice
    hbm_bytes: int
    hbm_limit_bytes: int
    host_tokens: int
    compile_seconds: float
    costs: Costs | None
    waiting_elsewhere: Mapping[str, float]

    @property
    def fits(self) -> bool:
        """Whether the compiler found room; it rounds the numbers that it gives where it did not."""
        return self.costs is not None

    @property
    def step_seconds(self) -> float | None:
        """The model of the step's time; None if it does not fit, as of all that follows from it."""
        return self.costs.step_seconds if self.costs else None

    @property
    def tokens_per_second(self) -> float | None:
        """Input and target tokens."""
        return self.tokens / self.step_seconds if self.step_seconds else None

    @property
    def tokens_per_second_per_host(self) -> float | None:
        """What each host must read and preprocess."""
        return self.host_tokens / self.step_seconds if self.step_seconds else None

    @property
    def days(self) -> float | None:
        """Days that the run's steps take."""
        return self._days_of(self.train_steps)

    @property
    def paper_days(self) -> float | None:
        """Days of the steps that read the paper's number of input tokens."""
        return self._days_of(PAPER_TOKENS / self.input_tokens)

    @property
    def chip_hours(self) -> float | None:
        """Hours of the run's steps, times the chips."""
        return 24 * self.days * self.hardware.chips if self.days else None

    @property
    def waiting(self) -> float | None:
        """The part of a step in which devices only wait for exchanges, from 0 to 1."""
        return self.costs.waiting_seconds / self.costs.step_seconds if self.costs else None

    @property
    def utilisation(self) -> float | None:
        """Model FLOPs divided by the peak FLOPs of the matrix units in the estimated cycles."""
        if not self.costs:
            return None
        peak = self.costs.estimated_cycles * self.hardware.generation.flops_per_cycle
        return self.model_flops / self.hardware.devices / peak

    def _days_of(self, steps: float) -> float | None:
        return steps * self.step_seconds / 86400 if self.step_seconds else None

    def as_json(self) -> dict[str, Any]:
        """The plan for programs; the costs of a step that does not fit are None."""
        costs = self.costs
        return {
            "topology": self.hardware.name,
            "mesh": dict(zip(("data", "expert", "model"), self.mesh, strict=True)),
            "parameters": self.parameters,
            "parameter_bytes": self.parameter_bytes,
            "optimizer_bytes": self.optimizer_bytes,
            "teacher_bytes": self.teacher_bytes,
            "routing_groups": {stack: groups._asdict() for stack, groups in self.groups.items()},
            "model_flops": self.model_flops,
            "model_flops_with_empty_slots": self.slot_flops,
            "tokens_per_step": self.tokens,
            "input_tokens_per_step": self.input_tokens,
            "hbm_bytes_per_chip": self.hbm_bytes,
            "hbm_limit_bytes": self.hbm_limit_bytes,
            "fits": self.fits,
            "hbm_arguments_bytes": costs and costs.arguments_bytes,
            "hbm_outputs_bytes": costs and costs.outputs_bytes,
            "hbm_temporaries_bytes": costs and costs.temporaries_bytes,
            "hbm_program_bytes": costs and costs.program_bytes,
            "compiled_flops": costs and costs.compiled_flops,
            "estimated_cycles": costs and costs.estimated_cycles,
            "scheduled_cycles": costs and costs.scheduled_cycles,
            "uncounted_operations": costs and dict(costs.uncounted),
            "cycles_by_part": costs and dict(costs.cycles_by_part),
            "floor_by_part": costs and dict(costs.floor_by_part),
            "utilisation": self.utilisation,
            "collectives": costs and [dataclasses.asdict(c) for c in costs.collectives],
            "compute_seconds_model": costs and costs.compute_seconds,
            "collective_seconds_model": costs and costs.collective_seconds,
            "waiting_seconds_model": costs and costs.waiting_seconds,
            "waiting_seconds_elsewhere": dict(self.waiting_elsewhere),
            "step_seconds_model": self.step_seconds,
            "tokens_per_second": self.tokens_per_second,
            "tokens_per_second_per_host": self.tokens_per_second_per_host,
            "train_steps": self.train_steps,
            "days": self.days,
            "chip_hours": self.chip_hours,
            "days_to_576e9_tokens": self.paper_days,
            "compile_seconds": self.compile_seconds,
        }


def make_plan(config: Config, hardware: Slice) -> Plan:
    """Compiles the training step of `switch_jax train` for a slice.

    Raises:
      UserError: the config does not fit the slice, or libtpu is missing.
    """
    mesh = make_mesh(config.mesh, devices(hardware))
    sizes, lowered = lowered_step(config, mesh)
    compiled = compile_program(lowered)
    per_chip = hardware.generation.devices_per_chip
    costs, elsewhere = None, {}
    if isinstance(compiled, Program):
        hbm_bytes, hbm_limit = compiled.peak * per_chip, hardware.generation.hbm_bytes
        costs = costs_of(compiled, mesh, hardware)
        if costs.waiting_seconds > MUCH_WAITING * costs.step_seconds:
            elsewhere = _waiting_elsewhere(config, compiled, hardware, costs.waiting_seconds)
    else:
        hbm_bytes, hbm_limit = compiled.needed * per_chip, compiled.limit * per_chip
    return Plan(
        **vars(sizes),
        hardware=hardware,
        hbm_bytes=hbm_bytes,
        hbm_limit_bytes=hbm_limit,
        host_tokens=config.tokens_read(min(hardware.hosts, batch_shards(mesh.shape))),
        compile_seconds=compiled.seconds,
        costs=costs,
        waiting_elsewhere=elsewhere,
    )


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
    teacher, groups = config.teacher_model, routing_groups(config)
    factors = {stack: of_stack.capacity_factor for stack, of_stack in groups.items()}
    return StepSizes(
        mesh=mesh.devices.shape,
        parameters=parameter_count(config.model),
        parameter_bytes=total_bytes(state.parameters),
        optimizer_bytes=total_bytes(state.optimizer),
        teacher_bytes=0 if teacher is None else total_bytes(abstract_parameters(teacher)),
        groups=groups,
        model_flops=step_flops(config),
        slot_flops=step_flops(config, (factors.get("encoder", 0.0), factors.get("decoder", 0.0))),
        tokens=config.tokens_per_step,
        input_tokens=config.run.batch_size * config.data.lengths[0],
        train_steps=config.run.train_steps,
    )


def _waiting_elsewhere(
    config: Config, compiled: Program, hardware: Slice, waiting: float
) -> dict[str, float]:
    """`Plan.waiting_elsewhere`, in the model of exchanges, for the program as it is compiled."""
    found = {}
    for other in equal_slices(hardware):
        with contextlib.suppress(UserError):  # there is none, or its slices do not divide data
            mesh = make_mesh(config.mesh, devices(other))
            seconds = costs_of(compiled, mesh, other, hardware.count).waiting_seconds
            if seconds < waiting:
                found[other.name] = seconds
    return dict(sorted(found.items(), key=lambda item: item[1]))
