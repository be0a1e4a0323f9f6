"""Seconds of each operation of a compiled program, from a profiler trace of some steps."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax

from switch_jax.planning.hlo import COLLECTIVES, TRANSFERS, Operation
from switch_jax.planning.measured import EXCHANGES
from switch_jax.planning.model_parts import model_part

_EXCHANGING = (*COLLECTIVES, *TRANSFERS)
# On TPUs an event is named by the operation as the program prints it: "%fusion.2 = f32[8] fusion(".
_TPU_LINE = "XLA Ops"
_TPU_NAME = re.compile(r"%?([\w.\-]+)")


def operation_seconds(folder: Path) -> dict[str, float]:
    """Seconds by name of operation, in all steps of a trace and on all devices of this process.

    Operations that contain others, as a loop, are there with the time of all that they contain.

    Args:
      folder: that was given to `jax.profiler.start_trace`.
    """
    seconds: dict[str, float] = {}
    for file in folder.glob("**/*.xplane.pb"):
        for name, nanoseconds in _events(jax.profiler.ProfileData.from_file(str(file))):
            seconds[name] = seconds.get(name, 0.0) + nanoseconds / 1e9
    return seconds


def _events(trace: jax.profiler.ProfileData) -> Iterator[tuple[str, float]]:
    """Name of the operation and nanoseconds of each execution; CPUs and GPUs say it in a stat."""
    for plane in trace.planes:
        for line in plane.lines:
            for event in line.events:
                if line.name == _TPU_LINE:
                    named = _TPU_NAME.match(event.name)
                    name = named.group(1) if named else event.name
                else:
                    name = dict(event.stats).get("hlo_op")
                if isinstance(name, str):
                    yield name, event.duration_ns


def exchange_seconds(seconds: Mapping[str, float]) -> float:
    """Of the collectives among the operations of `operation_seconds`."""
    return sum(value for name, value in seconds.items() if name.startswith(_EXCHANGING))


def seconds_by_part(
    seconds: Mapping[str, float], operations: Sequence[Operation]
) -> dict[str, float]:
    """Seconds of each part of the model, and of `EXCHANGES`, the longest first.

    Args:
      seconds: see `operation_seconds`.
      operations: of the program that was traced.
    """
    parts: dict[str, float] = {}
    for operation in operations:
        if operation.name not in seconds or operation.is_free:
            continue
        is_exchange = operation.opcode.startswith(_EXCHANGING)
        part = EXCHANGES if is_exchange else model_part(operation.op_name)
        parts[part] = parts.get(part, 0.0) + seconds[operation.name]
    return dict(sorted(parts.items(), key=lambda item: -item[1]))
