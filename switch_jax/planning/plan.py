"""A plan: memory and time of a run's training step on a slice."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from switch_jax.config import Config
from switch_jax.errors import UserError
from switch_jax.hardware import Generation, Slice, tpu_generation
from switch_jax.partitioning.mesh import batch_shards, make_mesh
from switch_jax.planning.collective_costs import Collective, collectives, seconds_of
from switch_jax.planning.compiler import Program, compile_program, devices
from switch_jax.planning.hlo import Operation, arrays
from switch_jax.planning.measured import Measured
from switch_jax.planning.model_parts import model_part
from switch_jax.planning.step_plan import StepPlan, lowered_step
from switch_jax.train_step.flops import step_flops

# What the compiler estimates for the smallest operations.
_LEAST_CYCLES = 2100
# Section 4.1: 550k steps of 2^20 tokens. We read them as input tokens: 2048 rows of 512.
PAPER_TOKENS = 576e9


@dataclasses.dataclass(frozen=True)
class Costs:
    """Costs of a program that fits. Cycles are those of one device in one step.

    Attributes:
      arguments_bytes, outputs_bytes, temporaries_bytes, program_bytes: of each chip; without
        outputs that reuse the memory of arguments.
      compiled_flops: of all chips together; of matrix products and kernels.
      estimated_cycles: the compiler's estimates, or cycles of the schedule for operations without
        an estimate.
      scheduled_cycles: the part of them that comes from the schedule.
      uncounted: the number of operations with neither, by opcode.
      cycles_by_part: estimated cycles by part of the model.
      floor_by_part: the same if each operation took only as long as its matrix products take at the
        chip's peak, or as its operands and results take to and from HBM, whichever is longer.
      collectives: the exchanges.
      compute_seconds: cycles divided by the clock frequency, and times what was measured.
      collective_seconds: of all exchanges, in the model of `collective_costs.seconds_of`, and times
        what was measured.
      waiting_seconds: the part of them in which a device does nothing else, in the model of
        `overlap.waiting_seconds`.
    """

    arguments_bytes: int
    outputs_bytes: int
    temporaries_bytes: int
    program_bytes: int
    compiled_flops: float
    estimated_cycles: int
    scheduled_cycles: int
    uncounted: Mapping[str, int]
    cycles_by_part: Mapping[str, int]
    floor_by_part: Mapping[str, int]
    collectives: list[Collective]
    compute_seconds: float
    collective_seconds: float
    waiting_seconds: float

    @property
    def step_seconds(self) -> float:
        """The model of the step's time: computation, and waiting for exchanges."""
        return self.compute_seconds + self.waiting_seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan(StepPlan):
    """The plan for one mesh on one slice.

    Attributes:
      slot_flops: `model_flops` with the empty slots of experts.
      input_tokens: input tokens of a step.
      host_tokens: tokens of a step that each host reads.
      costs: None if it does not fit.
    """

    hardware: Slice
    slot_flops: float
    input_tokens: int
    host_tokens: int
    costs: Costs | None

    @property
    def fits(self) -> bool:
        """Whether the compiler found room; it rounds the numbers that it gives where it did not."""
        return self.costs is not None

    @property
    def step_seconds(self) -> float | None:
        """The model of the step's time; None if it does not fit."""
        return self.costs.step_seconds if self.costs else None

    @property
    def tokens_per_second_per_host(self) -> float | None:
        """What each host must read and preprocess."""
        return self.host_tokens / self.step_seconds if self.step_seconds else None

    @property
    def paper_days(self) -> float | None:
        """Days of the steps that read the paper's number of input tokens."""
        return self.days_of(PAPER_TOKENS / self.input_tokens)

    @property
    def utilisation(self) -> float | None:
        """Model FLOPs divided by the peak FLOPs of the matrix units in the estimated cycles."""
        if not self.costs:
            return None
        peak = self.costs.estimated_cycles * self.hardware.generation.flops_per_cycle
        return self.model_flops / self.hardware.devices / peak

    def costs_as_json(self) -> dict[str, Any]:
        """The costs of a program that fits; else None."""
        costs = self.costs
        return {
            "hbm_arguments_bytes": costs and costs.arguments_bytes,
            "hbm_outputs_bytes": costs and costs.outputs_bytes,
            "hbm_temporaries_bytes": costs and costs.temporaries_bytes,
            "hbm_program_bytes": costs and costs.program_bytes,
            "model_flops_with_empty_slots": self.slot_flops,
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
            "input_tokens_per_step": self.input_tokens,
            "tokens_per_second_per_host": self.tokens_per_second_per_host,
            "days_to_576e9_tokens": self.paper_days,
        }


def make_plan(config: Config, hardware: Slice, measured: Measured | None = None) -> Plan:
    """Compiles the training step of `switch_jax train` for a slice.

    Args:
      config: the run.
      hardware: the slice.
      measured: on such chips, to correct the model of the step's time by.

    Raises:
      UserError: the config does not fit the slice, other devices were measured, or libtpu is
        missing.
    """
    if measured and tpu_generation(measured.device_kind) != hardware.generation:
        raise UserError(
            f"--measured={measured.file} is of {measured.device_kind}, and {hardware.name} has "
            f"chips of {hardware.generation.name}: give a file of `switch_jax doctor` on those"
        )
    mesh = make_mesh(config.mesh, devices(hardware))
    sizes, lowered = lowered_step(config, mesh)
    compiled = compile_program(lowered)
    slots = {stack: groups.capacity_factor for stack, groups in sizes.groups.items()}
    per_chip = hardware.generation.devices_per_chip
    if isinstance(compiled, Program):
        hbm_bytes, hbm_limit = compiled.peak * per_chip, hardware.generation.hbm_bytes
        costs = costs_of(compiled, mesh, hardware, measured)
    else:
        hbm_bytes, hbm_limit = compiled.needed * per_chip, compiled.limit * per_chip
        costs = None
    return Plan(
        **vars(sizes),
        hardware=hardware,
        hbm_bytes=hbm_bytes,
        hbm_limit_bytes=hbm_limit,
        slot_flops=step_flops(config, (slots.get("encoder", 0.0), slots.get("decoder", 0.0))),
        input_tokens=config.run.batch_size * config.data.lengths[0],
        host_tokens=config.tokens_read(min(hardware.hosts, batch_shards(mesh.shape))),
        compile_seconds=compiled.seconds,
        costs=costs,
        measured=measured,
    )


def costs_of(
    compiled: Program, mesh: Mesh, hardware: Slice, measured: Measured | None = None
) -> Costs:
    """Sums the costs of a compiled program's operations."""
    scheduled = 0
    by_part: dict[str, int] = {}
    floors: dict[str, float] = {}
    uncounted: dict[str, int] = {}
    computing: list[float] = []  # seconds of each operation
    schedule = _ScheduledCycles(compiled)
    for operation in compiled.operations:
        cycles = None if operation.started_by else _estimate(operation, hardware.generation)
        if cycles is None:
            cycles = schedule.cycles(operation)
            scheduled += (cycles or 0) * operation.count
        part = model_part(operation.op_name)
        ratio = measured.part_ratio(part) if measured else 1.0
        computing.append(ratio * (cycles or 0) * operation.count / hardware.generation.clock)
        if cycles is None:
            if operation.is_timed:
                uncounted[operation.opcode] = uncounted.get(operation.opcode, 0) + 1
            continue
        by_part[part] = by_part.get(part, 0) + cycles * operation.count
        floor = min(cycles, _floor(operation, hardware.generation))
        floors[part] = floors.get(part, 0.0) + floor * operation.count

    def exchange_seconds(op: str, size: float, group: Sequence[int], axis: str) -> float:
        ratio = measured.speeds.exchange_ratio(op, axis) if measured else 1.0
        return ratio * seconds_of(op, size, group, mesh, hardware)

    exchanges = collectives(compiled.operations, mesh, exchange_seconds, computing)
    per_chip = hardware.generation.devices_per_chip
    total = sum(by_part.values())
    by_part = dict(sorted(by_part.items(), key=lambda item: -item[1]))
    return Costs(
        arguments_bytes=per_chip * compiled.arguments,
        outputs_bytes=per_chip * (compiled.outputs - compiled.aliased),
        temporaries_bytes=per_chip * compiled.temporaries,
        program_bytes=per_chip * compiled.code,
        compiled_flops=float(
            hardware.devices * sum(o.flops * o.count for o in compiled.operations)
        ),
        estimated_cycles=total,
        scheduled_cycles=scheduled,
        uncounted=uncounted,
        cycles_by_part=by_part,
        floor_by_part={part: round(floors[part]) for part in by_part},
        collectives=exchanges,
        compute_seconds=sum(computing),
        collective_seconds=sum(c.seconds for c in exchanges),
        waiting_seconds=sum(c.waiting_seconds for c in exchanges),
    )


def _estimate(operation: Operation, generation: Generation) -> int | None:
    """The compiler's estimate for one execution; None if there is none.

    An array in HBM that is filled with one value takes as long as its bytes. The compiler estimates
    ten times as many cycles, where its own schedule has fewer. A loop over layers begins with such
    fills, of all that it saves.
    """
    is_fill = operation.opcode == "broadcast" and all(
        math.prod(dimensions) == 1 for _, dimensions in arrays(" ".join(operation.operands))
    )
    if operation.cycles is None or not is_fill or not operation.hbm_bytes:
        return operation.cycles
    return min(operation.cycles, max(_LEAST_CYCLES, round(_floor(operation, generation))))


def _floor(operation: Operation, generation: Generation) -> float:
    """Cycles that its products or its traffic alone take."""
    bytes_per_cycle = generation.hbm_bandwidth / generation.devices_per_chip / generation.clock
    products = operation.flops / generation.flops_per_cycle
    return max(products, operation.hbm_bytes / bytes_per_cycle)


class _ScheduledCycles:
    """Cycles of operations from the schedule, to which the compiler writes equal ones only once."""

    def __init__(self, compiled: Program) -> None:
        self._by_name = compiled.scheduled
        self._by_kind: dict[tuple[Any, ...], int] = {}
        for operation in compiled.operations:
            if operation.name in self._by_name:
                self._by_kind.setdefault(_kind(operation), self._by_name[operation.name])

    def cycles(self, operation: Operation) -> int | None:
        if not operation.is_timed:
            return None
        return self._by_name.get(operation.name, self._by_kind.get(_kind(operation)))


def _kind(operation: Operation) -> tuple[Any, ...]:
    return operation.opcode, operation.name.split(".")[0], operation.shape, operation.operands
