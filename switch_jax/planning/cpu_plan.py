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
from switch_jax.planning.step_sizes import StepSizes, step_sizes
from switch_jax.runtime.host_memory import host_bytes
from switch_jax.train_step.lowering import lower_train_step
from switch_jax.train_step.microbatches import check_batch
from switch_jax.train_step.state import abstract_state
from switch_jax.units import counted


@dataclasses.dataclass(frozen=True)
class CpuPlan(StepSizes):
    """The plan for one mesh of CPUs, with the sizes of its step (`StepSizes`).

    Attributes:
      topology: the name of the devices, as in 'cpu-2'.
      hbm_bytes: memory that each device needs.
      hbm_limit_bytes: the share of each device in this machine's memory.
      parts: seconds of a step by part of the model, exchanges too, the longest first.
      exchanges: the collectives.
      train_steps: of the run.
      compile_seconds: on this machine.
      measured: where the speeds are from.
    """

    topology: str
    hbm_bytes: int
    hbm_limit_bytes: int
    parts: Mapping[str, float]
    exchanges: Sequence[Collective]
    train_steps: int
    compile_seconds: float
    measured: Measured

    @property
    def fits(self) -> bool:
        """Whether the program fits in memory."""
        return self.hbm_bytes <= self.hbm_limit_bytes

    @property
    def step_seconds(self) -> float:
        """The model of the step's time."""
        return sum(self.parts.values())

    def as_json(self) -> dict[str, Any]:
        """The plan for programs."""
        return {
            "topology": self.topology,
            **self.sizes_as_json(),
            "hbm_bytes_per_chip": self.hbm_bytes,
            "hbm_limit_bytes": self.hbm_limit_bytes,
            "fits": self.fits,
            "seconds_by_part": dict(self.parts),
            "collectives": [dataclasses.asdict(c) for c in self.exchanges],
            "waiting_seconds_model": self.parts.get(EXCHANGES, 0.0),
            "step_seconds_model": self.step_seconds,
            "tokens_per_second": self.tokens / self.step_seconds,
            "train_steps": self.train_steps,
            "days": self.train_steps * self.step_seconds / 86400,
            "compile_seconds": self.compile_seconds,
            "measured": self.measured.as_json(),
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
    check_batch(config, mesh.shape)
    with jax.set_mesh(mesh):
        state = abstract_state(config, mesh)
        start = time.monotonic()
        compiled = lower_train_step(config, mesh, state).compile()
        seconds = time.monotonic() - start
    found = operations(compiled.as_text() or "")
    exchanges = measured_exchanges(found, mesh, measured.speeds)
    by_speeds = seconds_by_speeds(found, exchanges, measured.speeds)
    parts = {part: time * measured.part_ratio(part) for part, time in by_speeds.items()}
    return CpuPlan(
        **vars(step_sizes(config, mesh, state)),
        topology=cpus.name,
        hbm_bytes=program_memory(compiled).peak,
        hbm_limit_bytes=host_bytes() // cpus.devices,
        parts=dict(sorted(parts.items(), key=lambda item: -item[1])),
        exchanges=exchanges,
        train_steps=config.run.train_steps,
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
