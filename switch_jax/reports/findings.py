"""Collects what a report shows: the runs, and what follows from them."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from switch_jax.drawing.figures import COLOURS
from switch_jax.reports.comparison import Comparison, compare_all
from switch_jax.reports.records import preferred_task
from switch_jax.reports.runs import (
    GENERATED,
    Run,
    Series,
    common_steps,
    read_runs,
    with_distinct_names,
)
from switch_jax.reports.seeds import average_seeds
from switch_jax.utils.errors import TransientError, UserError
from switch_jax.utils.units import time_unit


@dataclasses.dataclass(frozen=True)
class Findings:
    """The runs of a report and what follows from them."""

    runs: list[Run]  # in the order of the command; means where runs differ in RANDOM_SEED alone
    left_out: Sequence[UserError] = ()  # an error for each folder without a run

    @cached_property
    def task(self) -> str | None:
        """The held-out task: "all" if every evaluated run has it; None if they share no task."""
        evaluated = [set(run.evals) for run in self.runs if run.evals]
        return preferred_task(set.intersection(*evaluated)) if evaluated else None

    @cached_property
    def comparisons(self) -> list[Comparison]:
        return compare_all(self.runs, self.task)

    @cached_property
    def colours(self) -> dict[str, str]:
        """The colours of the curves, by the name of the run; dense runs have the first ones."""
        ordered = sorted(self.runs, key=lambda run: not run.dense)
        return {run.name: COLOURS[i % len(COLOURS)] for i, run in enumerate(ordered)}

    @property
    def _curves(self) -> list[Series]:
        """The curves of the runs that are evaluated on the task."""
        return [curve for curve in map(self.held_out, self.runs) if curve is not None]

    @cached_property
    def ends_differ(self) -> bool:
        """Whether the last evaluations are of different steps."""
        return len({curve.step[-1] for curve in self._curves}) > 1

    @cached_property
    def common_step(self) -> int | None:
        """The last step after 0 at which all evaluated runs were evaluated; None if none is."""
        steps = common_steps(self._curves) if self._curves else ()
        return max((int(step) for step in steps if step > 0), default=None)

    @property
    def generated(self) -> list[str]:
        """The metrics of text that the runs generated at their evaluations, as in `Series`."""
        names = [name for run in self.runs for name in getattr(self.held_out(run), "values", ())]
        return [name for name in dict.fromkeys(names) if name.startswith(GENERATED)]

    @cached_property
    def time_unit(self) -> tuple[str, float]:
        """The unit of all training times, which suits the longest run, and its seconds."""
        return time_unit(float(np.fmax.reduce([run.seconds for run in self.runs])))

    def duration(self, seconds: float) -> str:
        """Writes a training time in that unit."""
        unit, size = self.time_unit
        return f"{seconds / size:.3g} {unit}"

    @property
    def title(self) -> str:
        return f"Training report: {', '.join(run.name for run in self.runs)}"

    @property
    def notes(self) -> list[str]:
        """What a reader must know before using the numbers."""
        found = [line for run in self.runs for line in run.left_out]
        if any(not (c.run.seeds or c.baseline.seeds) for c in self.comparisons):
            found.append(
                "with one seed of each run it is not known how much of a lead is chance: train "
                "with other values of RANDOM_SEED"
            )
        found += [note for comparison in self.comparisons for note in comparison.notes]
        if self.task is None and any(run.evals for run in self.runs):
            found.append("the runs have no held-out task in common, so they are not compared")
        if self.ends_differ and self.common_step is None:
            why = "there is no step at which all were evaluated"
            found.append(f"last values do not compare: {why}")
        return found

    def held_out(self, run: Run) -> Series | None:
        """Returns the curve of a run on the task; None if it is not evaluated yet."""
        return run.evals.get(self.task or "")

    def compared(self, run: Run) -> Series | None:
        """Returns the curve up to the step at which runs compare; all of it without such a step."""
        curve = self.held_out(run)
        if curve is None or self.common_step is None:
            return curve
        return curve.at(curve.step[curve.step <= self.common_step])


def read_findings(folders: Sequence[str]) -> Findings:
    """Reads the runs in these folders (MODEL_DIRs).

    Raises UserError if none of them has a record, TransientError if that may pass.
    """
    runs, left_out = read_runs(folders)
    if not runs:
        may_pass = any(isinstance(error, TransientError) for error in left_out)
        raise (TransientError if may_pass else UserError)("; ".join(map(str, left_out)))
    return Findings(with_distinct_names(average_seeds(runs)), left_out)
