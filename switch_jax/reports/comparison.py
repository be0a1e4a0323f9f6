"""Sparse runs against a dense one: speed-ups, and what came out in a sentence.

All are compared with the dense run whose last held-out value is the best. The speed-up is that of
Fedus et al. 2022 (footnote 9): steps of the dense run over steps that the sparse run takes to the
dense run's final quality; likewise for time. Between two evaluations a curve is taken as straight.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from switch_jax.reports.records import QUALITY
from switch_jax.reports.runs import Run, Series
from switch_jax.utils.units import as_text, rounded

_FEWEST = 3  # deviations from which a scatter is estimated
_NO_LEAD = 0.0005  # nats; a smaller lead is none
# Facts of run.json in which runs must agree, and what cannot be compared where they do not.
_MUST_AGREE = {"batch_tokens": "steps", "flops_per_token": "steps", "device": "time"}


class Reached(NamedTuple):
    """Where a curve first has a value; NaN where it never does."""

    step: float = math.nan
    seconds: float = math.nan
    at_first: bool = False  # at its first evaluation, so the others are upper bounds


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A sparse run beside a dense one, by their held-out curves."""

    dense: Run
    sparse: Run
    target: float  # the dense run's final held-out negative log perplexity, nats
    reached: Reached  # where the sparse run has it
    step_speedup: float  # NaN where the sparse run never gets there, as in time
    time_speedup: float
    # At the sparse run's evaluations after a tenth of its steps: "steps" and "time" of the dense
    # run over those of the sparse run to the same value; NaN where the dense run has none.
    speedups: Series
    sentence: str  # what came out
    notes: list[str]  # what a reader must know before quoting it


def compare_all(runs: Sequence[Run], task: str | None) -> list[Comparison]:
    """Every sparse run beside the dense one that has the best last held-out value on the task.

    Only runs that began from scratch, since a fine-tuned run's steps leave out those before, and
    that were evaluated after step 0; a dense one also needs a last value that is a number.
    """
    curves = [
        (run, curve)
        for run in runs
        if run.from_scratch
        and (curve := run.evals.get(task or "")) is not None
        and len(_known(curve)[0])
    ]
    dense = [(run, c) for run, c in curves if run.dense and math.isfinite(c.last(QUALITY))]
    if not dense:
        return []
    best = max(dense, key=lambda found: found[1].last(QUALITY))
    return [_compare(*best, run, curve) for run, curve in curves if run.sparse]


def _compare(dense: Run, dense_curve: Series, sparse: Run, curve: Series) -> Comparison:
    target = dense_curve.last(QUALITY)
    reached = first_reached(curve, target)
    speedup = float(dense_curve.step[-1]) / reached.step
    in_time = float(dense_curve.seconds[-1]) / (reached.seconds or math.nan)

    at_first = "at least " if reached.at_first else ""
    final = f"{dense.name}'s {'latest' if dense.unfinished else 'final'} {rounded(target)}"
    text = f"{sparse.name} does not reach {final} in {curve.step[-1]:,} steps"
    if math.isfinite(speedup):
        text = (
            f"{sparse.name} reaches {final} at step {reached.step:,.0f} of {curve.step[-1]:,}: "
            f"{at_first}{speedup:.2f} times sooner in steps"
        )
        text += f", {in_time:.2f} in time" if math.isfinite(in_time) else ""
    step, lead = _lead(dense_curve, curve)
    ahead = f"{abs(lead):.3f} nats {'ahead' if lead > 0 else 'behind'}"
    if math.isfinite(lead):
        text += f"; at step {step:,} it is {ahead}"
    scatter = max(_scatter(dense_curve), _scatter(curve))
    if abs(lead) < max(scatter, _NO_LEAD):
        text = f"{sparse.name} is level with {dense.name} at step {step:,}: {ahead}"
        text += f", where the curves scatter by {scatter:.3f}" if scatter > _NO_LEAD else ""

    notes = []
    if not math.isfinite(curve.last(QUALITY)):
        notes.append(f"{sparse.name}'s last value is not a number: it may have diverged")
    for key, what in _MUST_AGREE.items():
        a, b = dense.facts.get(key), sparse.facts.get(key)
        if a != b:
            names, values = f"{dense.name} and {sparse.name}", f"{as_text(a)} and {as_text(b)}"
            notes.append(f"{names} differ in {key} ({values}): do not compare their {what}")
    speedups = _speedups(dense_curve, curve)
    return Comparison(dense, sparse, target, reached, speedup, in_time, speedups, f"{text}.", notes)


def first_reached(curve: Series, target: float) -> Reached:
    """Where a held-out curve first has a value; step 0 is only the start of the first stretch."""
    values = curve.get(QUALITY)
    reached = np.flatnonzero((values >= target) & (curve.step > 0))
    if not len(reached):
        return Reached()
    i = int(reached[0])
    if i == 0 or not values[i - 1] < target:
        return Reached(float(curve.step[i]), float(curve.seconds[i]), at_first=True)
    part = float((target - values[i - 1]) / (values[i] - values[i - 1]))
    step, seconds = (x[i - 1] + part * (x[i] - x[i - 1]) for x in (curve.step, curve.seconds))
    return Reached(float(step), float(seconds))


def _known(curve: Series) -> tuple[np.ndarray, np.ndarray]:
    """The steps after 0 at which the quality is known [T], and its values [T]."""
    there = np.isfinite(curve.get(QUALITY)) & (curve.step > 0)
    return curve.step[there], curve.get(QUALITY)[there]


def _lead(dense: Series, sparse: Series) -> tuple[int, float]:
    """The last common step, and the lead of `sparse` there in nats; NaN where there is none."""
    curves = _known(dense), _known(sparse)
    step = int(min(steps[-1] for steps, _ in curves))
    values = [np.interp(step, *curve, left=math.nan) for curve in curves]
    return step, float(values[1] - values[0])


def _scatter(curve: Series) -> float:
    """How far evaluations scatter about a smooth curve, nats; 0 where there are too few to tell.

    The standard deviation of how far an evaluation lies above the straight line through the two
    beside it, over the second half of the steps.
    """
    step, value = _known(curve)
    i = np.arange(1, len(step) - 1)
    i = i[step[i] >= step[-1:] / 2]
    if len(i) < _FEWEST:
        return 0.0
    part = (step[i] - step[i - 1]) / (step[i + 1] - step[i - 1])
    above = value[i] - (value[i - 1] + part * (value[i + 1] - value[i - 1]))
    return float(above.std(ddof=1))


def _speedups(dense: Series, sparse: Series) -> Series:
    """See `Comparison.speedups`; in the first steps, one more or less is a large factor."""
    later = sparse.step >= max(1, sparse.step[-1] / 10)
    step, seconds = sparse.step[later], sparse.seconds[later]
    reached = [first_reached(dense, value) for value in sparse.get(QUALITY)[later]]
    # Without step 0 the first evaluation is an upper bound, which would read as a speed-up.
    exact = [Reached() if r.at_first else r for r in reached]
    in_steps = np.array([r.step for r in exact]) / step
    in_time = np.array([r.seconds for r in exact]) / np.where(seconds > 0, seconds, np.nan)
    return Series(step, seconds, {"steps": in_steps, "time": in_time})
