"""Makes a plan: memory and time of a run's training step on a slice."""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from switch_jax.config import Config
from switch_jax.hardware.tpus import Slice, equal_slices
from switch_jax.model.flops import parameter_count
from switch_jax.model.groups import Groups
from switch_jax.partitioning.mesh import AXES, make_mesh, readers
from switch_jax.partitioning.placing import device_bytes, total_bytes
from switch_jax.planning.compiler import Program, compile_program, devices
from switch_jax.planning.costs import Costs, costs_of
from switch_jax.planning.host_memory import host_bytes
from switch_jax.train_step.flops import step_flops
from switch_jax.train_step.lowering import lower_train_step
from switch_jax.train_step.microbatches import check_batch, routing_groups
from switch_jax.train_step.state import TrainState, abstract_model, abstract_state
from switch_jax.utils.errors import UserError

# Section 4.1: 550k steps of 2^20 tokens. We read them as input tokens: 2048 rows of 512.
PAPER_TOKENS = 576e9
_SECONDS_PER_DAY = 86400
_OF_TIME = (
    "step_seconds", "waiting", "utilisation", "utilisation_with_waiting", "tokens_per_second",
    "tokens_per_second_per_host", "days", "paper_days", "chip_hours",
)  # fmt: skip
# Of a step's time; other slices are looked at where devices wait longer for exchanges.
MUCH_WAITING = 0.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a training step for one mesh on one slice; `plan --json` has the same names.

    Attributes:
      mesh: devices along (data, expert, model).
      parameters: the number of parameters of the whole model.
      parameter_bytes, optimizer_bytes: the size of one copy, however it is sharded.
      teacher_bytes: the size of one copy of the teacher's parameters; 0 without a teacher.
      routing_groups: the groups of each stack; empty for a dense model.
      model_flops: FLOPs of a step on all devices together; see `train_step.flops.step_flops`.
      model_flops_with_empty_slots: the same with the empty slots of experts.
      batch_size: rows of a step, on all devices together.
      tokens_per_step: input and target tokens, padding included.
      host_tokens_per_step: tokens that each host reads.
      hbm_bytes_per_chip: the memory that the step needs.
      hbm_limit_bytes: the memory that a chip has for programs.
      host_bytes: what a run takes of a host's memory; see `host_memory.host_bytes`.
      host_limit_bytes: the memory of a host; None if it is not known.
      compile_seconds: time of compilation on this machine.
      costs: the costs of the step; None if it does not fit.
      waiting_seconds_elsewhere: how many seconds of a step devices would wait for collectives on
        another slice with the same number and kind of chips. The keys are names of slices, those
        that wait least first. It has only slices that wait less than this one, and is empty unless
        this one waits for more than MUCH_WAITING of the step.
    """

    hardware: Slice
    mesh: tuple[int, int, int]
    parameters: int
    parameter_bytes: int
    optimizer_bytes: int
    teacher_bytes: int
    routing_groups: Mapping[str, Groups]
    model_flops: float
    model_flops_with_empty_slots: float
    batch_size: int
    tokens_per_step: int
    input_tokens_per_step: int
    host_tokens_per_step: int
    train_steps: int
    hbm_bytes_per_chip: int
    hbm_limit_bytes: int
    host_bytes: int
    host_limit_bytes: int | None
    compile_seconds: float
    costs: Costs | None
    waiting_seconds_elsewhere: Mapping[str, float]

    @property
    def fits(self) -> bool:
        """Says whether the compiler found room; if not, it rounds the numbers that it gives."""
        return self.costs is not None

    @property
    def _costs(self) -> Costs:
        assert self.costs is not None, "a step that does not fit has no time"
        return self.costs

    # All that follow are of a step that fits.

    @property
    def step_seconds(self) -> float:
        return self._costs.step_seconds

    @property
    def waiting(self) -> float:
        """The part of a step in which devices only wait for collectives, from 0 to 1."""
        return self._costs.waiting_seconds / self.step_seconds

    @property
    def utilisation(self) -> float:
        """The model FLOPs over the peak FLOPs of the matrix units in the estimated cycles."""
        peak = self._costs.estimated_cycles * self.hardware.generation.flops_per_cycle
        return self.model_flops / self.hardware.devices / peak

    @property
    def utilisation_with_waiting(self) -> float:
        """The model FLOPs over the peak FLOPs in the whole time of a step (MFU)."""
        return self.utilisation * (1 - self.waiting)

    @property
    def tokens_per_second(self) -> float:
        """Input and target tokens a second."""
        return self.tokens_per_step / self.step_seconds

    @property
    def tokens_per_second_per_host(self) -> float:
        """The tokens that each host must read and preprocess a second."""
        return self.host_tokens_per_step / self.step_seconds

    @property
    def days(self) -> float:
        return self.train_steps * self.step_seconds / _SECONDS_PER_DAY

    @property
    def paper_days(self) -> float:
        """Days of the steps that read the paper's number of input tokens."""
        return PAPER_TOKENS / self.input_tokens_per_step * self.step_seconds / _SECONDS_PER_DAY

    @property
    def chip_hours(self) -> float:
        """The hours of the run's steps, times the chips."""
        return 24 * self.days * self.hardware.chips

    def as_json(self) -> dict[str, Any]:
        """Returns the plan for programs; figures that need a step that fits are None otherwise."""
        figures = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del figures["hardware"], figures["costs"]
        no_costs = {field.name: None for field in dataclasses.fields(Costs)}
        return {
            "topology": self.hardware.name,
            "fits": self.fits,
            **figures,
            **(dataclasses.asdict(self.costs) if self.costs else no_costs),
            **{name: getattr(self, name) if self.fits else None for name in _OF_TIME},
            "mesh": dict(zip(AXES, self.mesh, strict=True)),
            "routing_groups": {stack: g._asdict() for stack, g in self.routing_groups.items()},
        }


def make_plan(config: Config, hardware: Slice) -> Plan:
    """Makes a run's plan on a slice; UserError if the config does not fit, or libtpu is missing."""
    mesh = make_mesh(config.mesh, devices(hardware))
    state, lowered = lowered_step(config, mesh)
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
    teacher, groups = config.teacher_model, routing_groups(config)
    held = [state, *([] if teacher is None else [abstract_model(teacher, config.mesh, mesh)])]
    lengths = config.data.task_feature_lengths
    slots = {stack: of_stack.capacity_factor for stack, of_stack in groups.items()}
    return Plan(
        hardware=hardware,
        mesh=mesh.devices.shape,
        parameters=parameter_count(config.model),
        parameter_bytes=total_bytes(state.parameters),
        optimizer_bytes=total_bytes(state.optimizer),
        teacher_bytes=total_bytes(held[1:]),
        routing_groups=groups,
        model_flops=step_flops(config),
        model_flops_with_empty_slots=step_flops(config, slots),
        batch_size=config.run.batch_size,
        tokens_per_step=config.tokens_per_step,
        input_tokens_per_step=config.run.batch_size * config.model.stacks[0].length(lengths),
        host_tokens_per_step=config.tokens_read(readers(hardware.hosts, mesh.shape)),
        train_steps=config.run.train_steps,
        hbm_bytes_per_chip=hbm_bytes,
        hbm_limit_bytes=hbm_limit,
        host_bytes=host_bytes(device_bytes(held), hardware),
        host_limit_bytes=hardware.host_memory_bytes,
        compile_seconds=compiled.seconds,
        costs=costs,
        waiting_seconds_elsewhere=elsewhere,
    )


def lowered_step(config: Config, mesh: Mesh) -> tuple[TrainState, jax.stages.Lowered]:
    """Lowers a run's step; UserError if the batch does not divide over the mesh."""
    check_batch(config, mesh.shape)
    with jax.set_mesh(mesh):
        state = abstract_state(config, mesh)
        return state, lower_train_step(config, mesh, state)


def _waiting_elsewhere(
    config: Config, compiled: Program, hardware: Slice, waiting: float
) -> dict[str, float]:
    """Models `Plan.waiting_seconds_elsewhere` for the compiled program."""
    found = {}
    for other in equal_slices(hardware):
        with contextlib.suppress(UserError):  # there is none, or its slices do not divide data
            mesh = make_mesh(config.mesh, devices(other))
            seconds = costs_of(compiled, mesh, other, hardware.count).waiting_seconds
            if seconds < waiting:
                found[other.name] = seconds
    return dict(sorted(found.items(), key=lambda item: item[1]))
