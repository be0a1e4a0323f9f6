"""Whether steps take as long as a file says: a plan of `plan`, or what `doctor` measured."""

import dataclasses
import itertools
import json
import os
import statistics
from collections.abc import Mapping
from typing import Any

import jax

from switch_jax.config import Config
from switch_jax.errors import UserError
from switch_jax.metrics import Goodput, Profiler
from switch_jax.model.flops import parameter_count
from switch_jax.planning.trace import exchange_seconds, operation_seconds
from switch_jax.run_folder import MAX_TIMES_PLAN, training_seconds
from switch_jax.runtime.processes import is_first, publish, published
from switch_jax.storage import explain_read_errors, storage_path
from switch_jax.units import milliseconds

# Steps of a start: those before the first are not looked at, and the second ends the measurement.
_FIRST, _LAST = 100, 200
_PATIENCE = 20  # steps until a trace has to be there
_WAITING = "waiting_for_data"  # the share of its time that each process publishes


@dataclasses.dataclass(frozen=True)
class PlannedStep:
    """A training step in a file.

    Attributes:
      file: its name.
      seconds: that it takes.
      exchange_seconds: the part of them in which devices wait for exchanges; None: not known.
    """

    file: str
    seconds: float
    exchange_seconds: float | None


def read_planned_step(file: str, config: Config) -> PlannedStep:
    """Reads what `switch_jax plan --json` printed, or `switch_jax doctor --output` wrote.

    Args:
      file: here or in a bucket.
      config: of the run, whose step it has to be.

    Raises:
      UserError: it cannot be read, has no time of a step, or is of another model or batch.
    """
    with explain_read_errors(f"--plan={file}"):
        text = storage_path(file, "--plan").read_bytes()
    try:
        content = json.loads(text)
        found = _of_doctor(content) if "checks" in content else _of_plan(content)
        mesh = dict(content["mesh"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"--plan={file} is neither what `switch_jax plan --json` prints nor what `switch_jax "
            "doctor --output=FILE` writes: make one of them with the gin files of this run"
        ) from None
    seconds, exchanges, parameters, tokens = found
    own = dataclasses.asdict(config.mesh)
    other = {axis: n for axis, n in mesh.items() if own.get(axis) not in (None, n)}
    if not seconds:
        raise UserError(
            f"--plan={file} has no time of a step: a plan for GPUs has one with "
            "--measured=FILE, one of a step that does not fit has none, nor has a file of "
            "`switch_jax doctor --quick`"
        )
    if (parameters, tokens) != (parameter_count(config.model), config.tokens_per_step):
        raise UserError(
            f"--plan={file} is of another run: it has {parameters:,} parameters and {tokens:,} "
            f"tokens a step, and this run {parameter_count(config.model):,} and "
            f"{config.tokens_per_step:,}; make it with the gin files and values of this run"
        )
    if other:
        raise UserError(
            f"--plan={file} is of another mesh: it has {_axes(other)}, and this run "
            f"{_axes({axis: own[axis] for axis in other})}; make it with the mesh of this run"
        )
    return PlannedStep(os.path.basename(file), seconds, exchanges)


def _axes(mesh: Mapping[str, Any]) -> str:
    return ", ".join(f"MESH_{axis.upper()} = {n}" for axis, n in mesh.items())


_Found = tuple[float | None, float | None, int, int]


def _of_plan(plan: Mapping[str, Any]) -> _Found:
    """Seconds of a step and of its exchanges, parameters, tokens; TypeError, ... if it is none."""
    seconds, waiting = plan["step_seconds_model"], plan.get("waiting_seconds_model")
    return _number(seconds), _number(waiting), int(plan["parameters"]), int(plan["tokens_per_step"])


def _of_doctor(results: Mapping[str, Any]) -> _Found:
    step = {check["name"]: check["numbers"] for check in results["checks"]}.get("step")
    if not step:  # it was left out, or has failed
        return None, None, 0, 0
    exchanges = _number(step.get("exchange_seconds"))
    return _number(step["seconds"]), exchanges, int(step["parameters"]), int(step["tokens"])


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


class PlanWatch:
    """Says once, after 200 steps of a start, that they take longer than planned, and why.

    The first process says it, after a trace of five steps, which tells exchanges from the rest.
    """

    def __init__(self, planned: PlannedStep | None, goodput: Goodput, profiler: Profiler) -> None:
        self._planned, self._goodput, self._profiler = planned, goodput, profiler
        self._steps = 0
        self._spent: list[dict[str, float]] = []  # after each step
        self._waiting = 0.0  # share of the time
        self._seconds: float | None = None  # of a step that is too slow, while a trace is awaited

    def finished(self) -> str | None:
        """To be called after each step; returns the line for the user, if there is one."""
        self._steps += 1
        if self._planned is None or not _FIRST <= self._steps <= _LAST + _PATIENCE:
            return None
        if self._steps <= _LAST:
            self._spent.append(self._goodput.seconds())
        if self._steps == _LAST and (said := self._measure(self._planned)):
            return said
        is_traced = self._profiler.newest is not None
        if self._seconds is None or not (is_traced or self._steps == _LAST + _PATIENCE):
            return None
        seconds, self._seconds = self._seconds, None
        return self._warning(self._planned, seconds)

    def _measure(self, planned: PlannedStep) -> str | None:
        """Without compilation, evaluations and checkpoints; returns a line where all is well."""
        times = [training_seconds(spent) for spent in self._spent]
        seconds = statistics.median(b - a for a, b in itertools.pairwise(times))
        waiting = self._spent[-1]["data"] - self._spent[0]["data"]
        self._waiting = waiting / (times[-1] - times[0])
        publish(_WAITING, str(self._waiting))
        if not is_first():
            return None
        if seconds <= MAX_TIMES_PLAN * planned.seconds:
            return f"steps take {_beside(seconds, planned)}"
        self._seconds = seconds
        self._profiler.newest = None  # one that was made earlier
        self._profiler.request()
        return None

    def _warning(self, planned: PlannedStep, seconds: float) -> str:
        waiting = max([self._waiting, *map(float, published(_WAITING))])  # of all processes
        share = self._share_of_exchanges()
        exchanges = (share or 0.0) * seconds
        lost = {
            "data": waiting * seconds,
            "exchanges": max(0.0, exchanges - (planned.exchange_seconds or 0.0)),
        }
        lost["step"] = seconds - planned.seconds - sum(lost.values())
        text = f"warning: steps take {_beside(seconds, planned)}: "
        most = max(lost, key=lambda part: lost[part])
        if most == "data":
            return f"{text}{waiting:.0%} of the time they wait for data (docs/troubleshooting.md)"
        if most == "exchanges":
            known = planned.exchange_seconds
            there = "" if known is None else f", in place of {milliseconds(known)}"
            return (
                f"{text}exchanges between devices take {milliseconds(exchanges)} of it{there}: "
                "look at the links and the mesh (docs/meshes.md); `switch_jax doctor` measures them"
            )
        told = "without a trace" if share is None else f"{milliseconds(exchanges)} in exchanges"
        return (
            f"{text}it is the step itself ({waiting:.0%} of the time in waiting for data, {told}): "
            "look at the trace, and run `switch_jax doctor` on this machine"
        )

    def _share_of_exchanges(self) -> float | None:
        """Of the time of the traced steps, on a device of this process; None: no trace tells."""
        if self._profiler.newest is None:
            return None
        folder, seconds = self._profiler.newest
        try:
            trace = max((folder / "plugins" / "profile").iterdir())  # they are named by their time
            exchanges = exchange_seconds(operation_seconds(trace))
        except Exception:  # it is damaged or gone, or of another form: the run goes on
            return None
        return min(1.0, exchanges / jax.local_device_count() / seconds)


def _beside(seconds: float, planned: PlannedStep) -> str:
    return (
        f"{milliseconds(seconds)}, {seconds / planned.seconds:.1f} times the "
        f"{milliseconds(planned.seconds)} of {planned.file}"
    )
