"""A plan: what a run's training step needs and costs on a slice."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from switch_jax.config import Config
from switch_jax.hardware import Slice
from switch_jax.model.flops import parameter_count, training_flops
from switch_jax.model.groups import Groups
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.planning.collectives import Collective, collectives
from switch_jax.planning.compiler import Program, compile_program, devices
from switch_jax.planning.hlo import Operation
from switch_jax.planning.model_parts import part_of
from switch_jax.train_step.lowering import lower_train_step
from switch_jax.train_step.microbatches import check_batch, routing_groups
from switch_jax.train_step.state import abstract_state

# Section 4.1: 550k steps of 2^20 tokens. We read them as input tokens: 2048 rows of 512.
PAPER_TOKENS = 576e9


@dataclasses.dataclass(frozen=True)
class Costs:
    """What the compiler says of a program that fits; cycles are of one device.

    Attributes:
      arguments_bytes, outputs_bytes, temporaries_bytes, program_bytes: of a chip; outputs that
        reuse the memory of arguments are left out.
      compiled_flops: of all chips together; of matrix products and kernels, loops by their trips.
      estimated_cycles: of a step: the compiler's estimates, and counts of the schedule where it
        makes none.
      scheduled_cycles: the part of them that was counted.
      uncounted: operations with neither, by opcode.
      cycles_by_part: by part of the model.
      collectives: what devices send.
      compute_seconds: cycles over the clock.
      collective_seconds: in the model of `collectives.seconds_of`.
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
    collectives: list[Collective]
    compute_seconds: float
    collective_seconds: float

    @property
    def step_seconds(self) -> float:
        """The step-time model: computing and exchanging one after the other, none hidden."""
        return self.compute_seconds + self.collective_seconds


@dataclasses.dataclass(frozen=True)
class Plan:
    """One mesh of one slice.

    Attributes:
      topology: the slice.
      mesh: devices along (data, expert, model).
      parameters: of the whole model.
      parameter_bytes, optimizer_bytes: of all devices' shares of one copy.
      hbm_bytes: that a chip needs at once.
      hbm_limit_bytes: that a chip has for programs.
      model_flops: of a step, all chips together; see `model.flops.training_flops`.
      slot_flops: the same with the experts' empty slots.
      tokens: input and target tokens of a step, padding included.
      input_tokens: those of the inputs alone.
      groups: the routing groups of each stack; none in a dense model.
      compile_seconds: on this machine.
      costs: None where it does not fit.
    """

    topology: Slice
    mesh: tuple[int, int, int]
    parameters: int
    parameter_bytes: int
    optimizer_bytes: int
    hbm_bytes: int
    hbm_limit_bytes: int
    model_flops: float
    slot_flops: float
    tokens: int
    input_tokens: int
    groups: Mapping[str, Groups]
    compile_seconds: float
    costs: Costs | None

    @property
    def fits(self) -> bool:
        """Whether the compiler could place it."""
        return self.costs is not None

    @property
    def tokens_per_second(self) -> float | None:
        """In the step-time model."""
        return self.tokens / self.costs.step_seconds if self.costs else None

    @property
    def days(self) -> float | None:
        """To train on as many input tokens as the paper, in the step-time model."""
        if not self.costs:
            return None
        return PAPER_TOKENS / self.input_tokens * self.costs.step_seconds / 86400

    @property
    def utilisation(self) -> float | None:
        """Model FLOPs over what the matrix units could do in the estimated cycles."""
        if not self.costs:
            return None
        peak = self.costs.estimated_cycles * self.topology.generation.flops_per_cycle
        return self.model_flops / self.topology.devices / peak

    def as_json(self) -> dict[str, Any]:
        """Keys that programs may rely on; those after `fits` are None where it does not fit."""
        costs = self.costs
        return {
            "topology": self.topology.name,
            "mesh": dict(zip(("data", "expert", "model"), self.mesh, strict=True)),
            "parameters": self.parameters,
            "parameter_bytes": self.parameter_bytes,
            "optimizer_bytes": self.optimizer_bytes,
            "routing_groups": {stack: its._asdict() for stack, its in self.groups.items()},
            "hbm_bytes_per_chip": self.hbm_bytes,
            "hbm_limit_bytes": self.hbm_limit_bytes,
            "fits": self.fits,
            "hbm_arguments_bytes": costs and costs.arguments_bytes,
            "hbm_outputs_bytes": costs and costs.outputs_bytes,
            "hbm_temporaries_bytes": costs and costs.temporaries_bytes,
            "hbm_program_bytes": costs and costs.program_bytes,
            "model_flops": self.model_flops,
            "model_flops_with_empty_slots": self.slot_flops,
            "compiled_flops": costs and costs.compiled_flops,
            "estimated_cycles": costs and costs.estimated_cycles,
            "scheduled_cycles": costs and costs.scheduled_cycles,
            "uncounted_operations": costs and dict(costs.uncounted),
            "cycles_by_part": costs and dict(costs.cycles_by_part),
            "utilisation": self.utilisation,
            "collectives": costs and [dataclasses.asdict(c) for c in costs.collectives],
            "compute_seconds_model": costs and costs.compute_seconds,
            "collective_seconds_model": costs and costs.collective_seconds,
            "step_seconds_model": costs and costs.step_seconds,
            "tokens_per_step": self.tokens,
            "input_tokens_per_step": self.input_tokens,
            "tokens_per_second": self.tokens_per_second,
            "days_to_576e9_tokens": costs and self.days,
            "compile_seconds": self.compile_seconds,
        }


def make_plan(config: Config, hardware: Slice) -> Plan:
    """Compiles the training step that `train` runs, for a slice that need not be there.

    Raises:
      UserError: the config does not fit the slice, or libtpu is missing.
    """
    mesh = make_mesh(config.mesh, devices(hardware))
    check_batch(config, mesh.shape)
    with jax.set_mesh(mesh):
        state = abstract_state(config, mesh)
        compiled = compile_program(lower_train_step(config, mesh, state))
    groups = routing_groups(config, mesh.shape)
    slots = (1.0, 1.0)
    if groups:
        slots = groups["encoder"].capacity_factor, groups["decoder"].capacity_factor
    per_chip = hardware.generation.devices_per_chip
    if isinstance(compiled, Program):
        needed, limit = compiled.peak * per_chip, hardware.generation.hbm_bytes
        costs = costs_of(compiled, mesh, hardware)
    else:
        needed, limit, costs = compiled.needed * per_chip, compiled.limit * per_chip, None
    batch_size, lengths = config.run.batch_size, config.data.lengths
    return Plan(
        topology=hardware,
        mesh=mesh.devices.shape,
        parameters=parameter_count(config.model),
        parameter_bytes=_size(state.parameters),
        optimizer_bytes=_size(state.optimizer),
        hbm_bytes=needed,
        hbm_limit_bytes=limit,
        model_flops=batch_size * training_flops(config.model, *lengths),
        slot_flops=batch_size * training_flops(config.model, *lengths, slots),
        tokens=config.tokens_per_step,
        input_tokens=batch_size * lengths[0],
        groups=groups,
        compile_seconds=compiled.seconds,
        costs=costs,
    )


def costs_of(compiled: Program, mesh: Mesh, hardware: Slice) -> Costs:
    """Adds up a compiled program."""
    scheduled = 0
    by_part: dict[str, int] = {}
    uncounted: dict[str, int] = {}
    lookup = _Schedule(compiled)
    for operation in compiled.operations:
        cycles = operation.cycles
        if cycles is None:
            cycles = lookup(operation)
            scheduled += (cycles or 0) * operation.times
        if cycles is None:
            if operation.is_timed:
                uncounted[operation.opcode] = uncounted.get(operation.opcode, 0) + 1
            continue
        part = part_of(operation.path)
        by_part[part] = by_part.get(part, 0) + cycles * operation.times
    exchanged = collectives(compiled.operations, mesh, hardware)
    per_chip = hardware.generation.devices_per_chip
    total = sum(by_part.values())
    return Costs(
        arguments_bytes=per_chip * compiled.arguments,
        outputs_bytes=per_chip * (compiled.outputs - compiled.aliased),
        temporaries_bytes=per_chip * compiled.temporaries,
        program_bytes=per_chip * compiled.code,
        compiled_flops=float(sum(o.flops * o.times for o in compiled.operations))
        * hardware.devices,
        estimated_cycles=total,
        scheduled_cycles=scheduled,
        uncounted=uncounted,
        cycles_by_part=dict(sorted(by_part.items(), key=lambda item: -item[1])),
        collectives=exchanged,
        compute_seconds=total / hardware.generation.clock,
        collective_seconds=sum(c.seconds for c in exchanged),
    )


class _Schedule:
    """Counted cycles by operation; of equal operations the compiler writes down only one."""

    def __init__(self, compiled: Program) -> None:
        self._by_name = compiled.scheduled
        self._by_kind: dict[tuple[Any, ...], int] = {}
        for operation in compiled.operations:
            if operation.name in self._by_name:
                self._by_kind.setdefault(_kind(operation), self._by_name[operation.name])

    def __call__(self, operation: Operation) -> int | None:
        if not operation.is_timed:
            return None
        return self._by_name.get(operation.name, self._by_kind.get(_kind(operation)))


def _kind(operation: Operation) -> tuple[Any, ...]:
    return operation.opcode, operation.name.split(".")[0], operation.shape, operation.operands


def _size(arrays: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(arrays))
