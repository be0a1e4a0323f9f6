"""A plan for CPUs that `switch_jax doctor` has measured: the time of a run's training step."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from switch_jax.config import Config, MeshConfig
from switch_jax.errors import UserError
from switch_jax.hardware import Cpus
from switch_jax.partitioning.mesh import make_mesh, mesh_shape
from switch_jax.planning.collective_costs import Collective, collectives
from switch_jax.planning.hlo import COLLECTIVES, Operation, operations
from switch_jax.planning.measured import EXCHANGES, Measured, Speeds
from switch_jax.planning.model_parts import model_part
from switch_jax.planning.program_memory import program_memory
from switch_jax.planning.step_plan import StepPlan, lowered_step
from switch_jax.runtime.host_memory import host_bytes
from switch_jax.units import counted


@dataclasses.dataclass(frozen=True, kw_only=True)
class CpuPlan(StepPlan):
    """The plan for one mesh of CPUs.

    Attributes:
      parts: seconds of a step by part of the model, exchanges too, the longest first.
      exchanges: the collectives.
    """

    hardware: Cpus
    parts: Mapping[str, float]
    exchanges: Sequence[Collective]

    @property
    def step_seconds(self) -> float:
        """The sum of the parts."""
        return sum(self.parts.values())

    def costs_as_json(self) -> dict[str, Any]:
        """The parts and the exchanges."""
        return {
            "seconds_by_part": dict(self.parts),
            "collectives": [dataclasses.asdict(c) for c in self.exchanges],
            "waiting_seconds_model": self.parts.get(EXCHANGES, 0.0),
        }


def make_cpu_plan(config: Config, cpus: Cpus, measured: Measured | None) -> CpuPlan:
    """Compiles the training step of `switch_jax train` for CPUs, and estimates its time.

    Raises:
      UserError: the config does not fit the devices, or they were not measured.
    """
    if measured is None or (measured.device_kind, measured.devices) != ("cpu", cpus.devices):
        given = measured and f"; {measured.file} is of {measured.devices} x {measured.device_kind}"
        raise UserError(
            f"--topology={cpus.name} needs --measured=FILE, where FILE is what `switch_jax doctor "
            f"--output=FILE` wrote on {counted(cpus.devices, 'CPU device')}{given or ''}"
        )
    jax.config.update("jax_platforms", "cpu")  # of a machine that has others, too
    data, expert, model = mesh_shape(config.mesh, cpus.devices, platform="cpu")
    mesh = make_mesh(MeshConfig(data, expert, model))
    sizes, lowered = lowered_step(config, mesh)
    start = time.monotonic()
    compiled = lowered.compile()
    seconds = time.monotonic() - start
    found = operations(compiled.as_text() or "")
    exchanges = measured_exchanges(found, mesh, measured.speeds)
    by_speeds = seconds_by_speeds(found, exchanges, measured.speeds)
    parts = {part: time * measured.part_ratio(part) for part, time in by_speeds.items()}
    return CpuPlan(
        **vars(sizes),
        hardware=cpus,
        hbm_bytes=program_memory(compiled).peak,
        hbm_limit_bytes=host_bytes() // cpus.devices,
        parts=dict(sorted(parts.items(), key=lambda item: -item[1])),
        exchanges=exchanges,
        compile_seconds=seconds,
        measured=measured,
    )


def seconds_by_speeds(
    operations: Sequence[Operation], exchanges: Sequence[Collective], speeds: Speeds
) -> dict[str, float]:
    """Seconds of a step by part of the model, exchanges too, if all went at the measured speeds.

    An operation takes as long as its products or its operands and results, whichever is longer.
    """
    parts: dict[str, float] = {}
    for operation in operations:
        if operation.is_timed and not operation.opcode.startswith(COLLECTIVES):
            part = model_part(operation.op_name)
            seconds = max(
                operation.flops / speeds.flops_per_second,
                operation.hbm_bytes / speeds.bytes_per_second,
            )
            parts[part] = parts.get(part, 0.0) + operation.count * seconds
    return parts | ({EXCHANGES: sum(c.seconds for c in exchanges)} if exchanges else {})


def measured_exchanges(
    operations: Sequence[Operation], mesh: Mesh, speeds: Speeds
) -> list[Collective]:
    """The collectives of a program, with their seconds at the measured speeds."""

    def seconds(op: str, size: float, group: Sequence[int], axis: str) -> float:
        return speeds.exchange_seconds(op, size, axis)

    return collectives(operations, mesh, seconds, [0.0] * len(operations))
