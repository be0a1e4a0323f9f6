"""Adds up the costs of a compiled program: cycles by part of the model, collectives, memory."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from switch_jax.hardware.tpus import Generation, Slice
from switch_jax.planning.collective_costs import Collective, collectives
from switch_jax.planning.compiler import Program
from switch_jax.planning.hlo import Operation, arrays
from switch_jax.planning.model_parts import model_part

# What the compiler estimates for the smallest operations.
_LEAST_CYCLES = 2100


@dataclasses.dataclass(frozen=True)
class Costs:
    """The costs of a program that fits. Cycles are those of one device in one step.

    Attributes:
      arguments_bytes, outputs_bytes, temporaries_bytes, program_bytes: memory of each chip; without
        outputs that reuse the memory of arguments.
      compiled_flops: FLOPs of matrix products and kernels, on all chips together.
      estimated_cycles: by the compiler, or by its schedule if an operation has no estimate.
      scheduled_cycles: the part of them that comes from the schedule.
      uncounted: the number of operations with neither, by opcode.
      cycles_by_part: estimated cycles by part of the model.
      floor_by_part: the same if each operation took only as long as its matrix products take at the
        chip's peak, or as its operands and results take to and from HBM, whichever is longer.
      collective_seconds: time of all collectives, in the model of `collective_costs.seconds_of`.
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
        """The model of the step's time: computation, and waiting for collectives."""
        return self.compute_seconds + self.waiting_seconds


def costs_of(
    compiled: Program, mesh: Mesh, hardware: Slice, compiled_for: int | None = None
) -> Costs:
    """Adds up the costs of a program on a slice; `compiled_for` is as for `collectives`."""
    scheduled = 0
    by_part: dict[str, int] = {}
    floors: dict[str, float] = {}
    uncounted: dict[str, int] = {}
    computing: list[float] = []  # seconds of each operation
    # Of equal operations the compiler writes only one to the schedule; the first one counts.
    by_name, operations = compiled.scheduled, compiled.operations
    by_kind = {_kind(o): by_name[o.name] for o in reversed(operations) if o.name in by_name}
    for operation in operations:
        cycles = None if operation.started_by else _estimate(operation, hardware.generation)
        if cycles is None and operation.is_timed:
            cycles = by_name.get(operation.name, by_kind.get(_kind(operation)))
            scheduled += (cycles or 0) * operation.count
        part = model_part(operation.op_name)
        computing.append((cycles or 0) * operation.count / hardware.generation.clock)
        if cycles is None:
            if operation.is_timed:
                uncounted[operation.opcode] = uncounted.get(operation.opcode, 0) + 1
            continue
        by_part[part] = by_part.get(part, 0) + cycles * operation.count
        floor = min(cycles, _floor(operation, hardware.generation))
        floors[part] = floors.get(part, 0.0) + floor * operation.count
    exchanges = collectives(operations, mesh, hardware, computing, compiled_for)
    per_chip = hardware.generation.devices_per_chip
    total = sum(by_part.values())
    by_part = dict(sorted(by_part.items(), key=lambda item: -item[1]))
    return Costs(
        arguments_bytes=per_chip * compiled.arguments,
        outputs_bytes=per_chip * (compiled.outputs - compiled.aliased),
        temporaries_bytes=per_chip * compiled.temporaries,
        program_bytes=per_chip * compiled.code,
        compiled_flops=float(hardware.devices * sum(o.flops * o.count for o in operations)),
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
    """Returns the compiler's estimate for one execution; None if there is none.

    For an array in HBM that is filled with one value the estimate is ten times the time to write
    the bytes, which is returned instead. A loop over layers begins with such fills, one for each
    array that it saves.
    """
    is_fill = operation.opcode == "broadcast" and all(
        math.prod(dimensions) == 1 for _, dimensions in arrays(" ".join(operation.operands))
    )
    if operation.cycles is None or not is_fill or not operation.hbm_bytes:
        return operation.cycles
    return min(operation.cycles, max(_LEAST_CYCLES, round(_floor(operation, generation))))


def _floor(operation: Operation, generation: Generation) -> float:
    """Returns the cycles that an operation's products or its traffic alone need."""
    bytes_per_cycle = generation.hbm_bandwidth / generation.devices_per_chip / generation.clock
    products = operation.flops / generation.flops_per_cycle
    return max(products, operation.hbm_bytes / bytes_per_cycle)


def _kind(operation: Operation) -> tuple[Any, ...]:
    return operation.opcode, operation.name.split(".")[0], operation.shape, operation.operands
