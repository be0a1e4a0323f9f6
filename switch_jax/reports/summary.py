"""The numbers of a report: final values, and the speed-up of sparse runs over dense ones."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from switch_jax.errors import UserError
from switch_jax.reports.runs import Run, Series
from switch_jax.units import (
    aligned,
    count,
    duration,
    percent,
    perplexity,
    rounded,
    time_unit,
)

QUALITY = "neg_log_perplexity"


def held_out_task(runs: Sequence[Run]) -> str | None:
    """The task whose evaluations the runs are compared on: "all" where every run has it.

    None where no run has been evaluated yet, or fine-tuned ones have no task in common: those
    compare by their downstream scores.

    Raises:
      UserError: the runs were evaluated on different tasks.
    """
    evaluated = [run for run in runs if run.evals]
    if not evaluated:
        return None
    common = set.intersection(*(set(run.evals) for run in evaluated))
    if not common and not any(run.facts.get("initial_checkpoint") for run in evaluated):
        raise UserError(f"{_tasks_differ(evaluated)}; report them one by one")
    return preferred(common)


def empty_rows(runs: Sequence[Run], task: str | None) -> str | None:
    """Why the rows of held-out numbers are empty; None where they are not."""
    evaluated = [run for run in runs if run.evals]
    if task is not None or not evaluated:
        return None
    return f"{_tasks_differ(evaluated)}, so the rows of held-out numbers are empty"


def _tasks_differ(evaluated: Sequence[Run]) -> str:
    tasks = "; ".join(f"{run.name}: {', '.join(run.evals)}" for run in evaluated)
    return f"the runs have no held-out task in common ({tasks})"


def preferred(tasks: set[str]) -> str | None:
    """The task to compare on: "all", the mean over tasks, if it is among them; None: no tasks."""
    return "all" if "all" in tasks else min(tasks, default=None)


def held_out(run: Run, task: str | None) -> Series | None:
    """The held-out curve of a run; None where it has not been evaluated yet."""
    return run.evals.get(task) if task else None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """When a sparse run reaches the final held-out value of a dense run.

    The speed-up is the paper's (footnote 9): steps of the dense run over steps the sparse run takes
    to the same quality; likewise for time. Between two evaluations the curve is taken as straight.

    Attributes:
      target: the dense run's final held-out negative log perplexity, nats.
      dense_step, dense_seconds: of the dense run's final value.
      step, seconds: where the sparse run reaches the target; None if it never does.
      at_first: its first evaluation is at or above the target, so `step` is an upper bound.
      best: the sparse run's best held-out value, nats.
    """

    dense: Run
    sparse: Run
    target: float
    dense_step: int
    dense_seconds: float
    step: float | None
    seconds: float | None
    at_first: bool
    best: float

    @property
    def step_speedup(self) -> float | None:
        return None if self.step is None else self.dense_step / self.step

    @property
    def time_speedup(self) -> float | None:
        return self.dense_seconds / self.seconds if self.seconds else None

    def sentence(self) -> str:
        end = (
            f"{self.dense.name}'s final held-out value "
            f"({self.target:.3f} at step {self.dense_step:,})"
        )
        if self.step is None:
            never = "has not reached" if self.sparse.unfinished else "never reaches"
            return (
                f"{self.sparse.name} {never} {end}; its best is {self.best:.3f}. "
                "There is no speed-up to state."
            )
        when = "at or before its first evaluation, step" if self.at_first else "at step"
        least = "at least " if self.at_first else ""
        text = (
            f"{self.sparse.name} reaches {end} {when} {self.step:,.0f}: a speed-up of "
            f"{least}{self.step_speedup:.2f}× in steps ({self.dense_step:,} / {self.step:,.0f})"
        )
        if self.seconds and self.time_speedup and math.isfinite(self.time_speedup):
            unit, size = time_unit(self.dense_seconds)
            text += (
                f" and {least}{self.time_speedup:.2f}× in time "
                f"({self.dense_seconds / size:.3g} / {self.seconds / size:.3g} {unit})"
            )
        return text + "."

    def caveats(self) -> list[str]:
        """What a reader must know before quoting the speed-up."""
        notes = []
        if self.dense.unfinished:
            notes.append(
                f"{self.dense.name} is not finished (step {self.dense.last_step:,} of "
                f"{self.dense.facts['train_steps']:,}): its final value is the value so far."
            )
        for run in (self.dense, self.sparse):
            if run.skipped_steps:
                notes.append(
                    f"{run.name} skipped {run.skipped_steps:,} steps as bad "
                    "(docs/reliability.md), so the two did not learn from the same batches."
                )
        for key, what in (
            ("batch_tokens", "tokens per batch differ, so a step is not the same amount of text"),
            ("device", "devices differ, so compare steps, not time"),
        ):
            a, b = self.dense.facts.get(key), self.sparse.facts.get(key)
            if a != b:
                notes.append(
                    f"{self.dense.name} and {self.sparse.name}: {what} ({_fact(a)} and {_fact(b)})."
                )
        return notes


def compare(dense: Run, sparse: Run, task: str | None) -> Comparison | None:
    """Where the sparse run's held-out curve meets the dense run's final value.

    None where there is nothing to compare: no evaluation after step 0 in one of them, or a dense
    run that ended with a value that is not finite.
    """
    reference, curve = held_out(dense, task), held_out(sparse, task)
    if reference is None or curve is None or reference.step[-1] == 0 or curve.step[-1] == 0:
        return None
    target = reference.last(QUALITY)
    if not math.isfinite(target):
        return None

    values = curve.get(QUALITY)
    step = seconds = None
    at_first = False
    # The untrained model of step 0 only serves as the start of the first stretch.
    reached = np.flatnonzero((values >= target) & (curve.step > 0))
    if len(reached):
        i = int(reached[0])
        at_first = i == 0 or not values[i - 1] < target
        part = 1.0 if at_first else float((target - values[i - 1]) / (values[i] - values[i - 1]))
        step, seconds = (
            float(x[i] if at_first else x[i - 1] + part * (x[i] - x[i - 1]))
            for x in (curve.step, curve.seconds)
        )
    return Comparison(
        dense=dense,
        sparse=sparse,
        target=target,
        dense_step=int(reference.step[-1]),
        dense_seconds=float(reference.seconds[-1]),
        step=step,
        seconds=seconds,
        at_first=at_first,
        best=float(np.fmax.reduce(values)),
    )


def comparisons(runs: Sequence[Run], task: str | None) -> list[Comparison]:
    """Compares every dense run with every sparse run, of those that started from scratch.

    The steps of a fine-tuned run do not count those of its pretraining.
    """
    runs = [run for run in runs if not run.facts.get("initial_checkpoint")]
    dense, sparse = [r for r in runs if r.dense], [r for r in runs if r.sparse]
    pairs = (compare(d, s, task) for d, s in itertools.product(dense, sparse))
    return [pair for pair in pairs if pair is not None]


Rows = list[tuple[str, list[str]]]


def final_numbers(runs: Sequence[Run], task: str | None) -> Rows:
    """The last value of the main numbers: (what, one text per run)."""

    def quality(run: Run, name: str, form: Callable[[float], str]) -> str:
        curve = held_out(run, task)
        if curve is None:
            return "" if run.evals else "not yet"
        return form(curve.last(name))

    def steps(run: Run) -> str:
        planned = run.facts.get("train_steps")
        return f"{run.last_step:,}" + (f" of {planned:,}" if planned else "")

    def routing(run: Run, name: str, form: Callable[[float], str]) -> str:
        last = [getattr(layer, name)[-1] for layer in run.layers]
        return form(float(np.mean(last))) if last else ""

    cells: dict[str, Callable[[Run], str]] = {
        "Held-out neg. log perplexity [nats]": lambda run: quality(run, QUALITY, rounded),
        "Held-out perplexity": lambda run: quality(run, QUALITY, perplexity),
        "Held-out token accuracy": lambda run: quality(run, "accuracy", percent),
        "Training neg. log perplexity [nats]": lambda run: rounded(run.train.last(QUALITY)),
        "Steps": steps,
        "Training time": lambda run: duration(run.seconds),
        "Throughput, median [tokens/s]": lambda run: count(run.train.median("tokens_per_second")),
        "Parameters": lambda run: _fact(run.facts.get("parameters")),
        "Experts per sparse layer (0 = dense)": lambda run: _fact(run.facts.get("num_experts")),
    }
    if any(run.skipped_steps for run in runs):
        cells["Steps skipped as bad"] = lambda run: f"{run.skipped_steps:,}"
    if any(run.layers for run in runs):
        cells |= {
            "Tokens dropped, mean of layers": lambda run: routing(run, "dropped", percent),
            "Router entropy, mean of layers [nats]": lambda run: routing(run, "entropy", rounded),
        }
    return [(what, [cell(run) for run in runs]) for what, cell in cells.items()]


def task_numbers(runs: Sequence[Run]) -> Rows:
    """Final held-out negative log perplexity and accuracy by task."""

    def cell(run: Run, task: str) -> str:
        if task not in run.evals:
            return ""
        curve = run.evals[task]
        return f"{rounded(curve.last(QUALITY))} ({percent(curve.last('accuracy'))})"

    tasks = sorted({task for run in runs for task in run.evals})
    return [(task, [cell(run, task) for run in runs]) for task in tasks]


def facts_table(runs: Sequence[Run]) -> Rows:
    """All fields of run.json."""
    keys = dict.fromkeys(key for run in runs for key in run.facts if key != "name")

    def cell(run: Run, key: str) -> str:
        return "none" if run.facts.get(key, "") is None else _fact(run.facts.get(key))

    return [(key, [cell(run, key) for run in runs]) for key in keys]


def _fact(value: object) -> str:
    """A value of run.json, unrounded."""
    if value is None:
        return "not stated"
    if isinstance(value, dict):
        return " · ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,.15g}"
    return str(value)


def text_table(runs: Sequence[Run], rows: Rows) -> str:
    """The rows as plain text with aligned columns, one column a run."""
    table = [("", *(run.name for run in runs)), *((label, *cells) for label, cells in rows)]
    return "\n".join(aligned(table, right=range(1, len(runs) + 1)))
