"""Compares runs with a baseline: speed-ups, and the result in a sentence.

The baseline is the dense run whose last held-out value is the best, and the sparse runs are
compared with it. Without a dense run, it is the sparse run whose last value is the worst. The
speed-up is that of Fedus et al. 2022 (footnote 9): steps of the baseline over steps that the other
run needs for the baseline's final quality; likewise for time. Between two evaluations a curve
counts as straight, but not from step 0 on, where it is far from that.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from switch_jax.reports.records import QUALITY
from switch_jax.reports.runs import Run, Series
from switch_jax.utils.units import rounded

_FEWEST = 3  # deviations from which a scatter is estimated
_NO_LEAD = 0.0005  # nats; a smaller lead is none
# Facts of run.json in which runs must agree, and what cannot be compared where they do not.
_MUST_AGREE = {"batch_tokens": "steps", "flops_per_token": "steps", "device": "time"}


class Reached(NamedTuple):
    """The step and time at which a curve first has a value; NaN if it never does."""

    step: float = math.nan
    seconds: float = math.nan
    at_first: bool = False  # at the first evaluation: step and seconds are upper bounds


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The comparison of a run with the baseline, by their held-out curves."""

    baseline: Run
    run: Run
    target: float  # the baseline's final held-out negative log perplexity, nats
    reached: Reached  # where the run has this value
    # How many times sooner, in "steps" and in "time"; NaN if the run never has the value, or if
    # steps, or times, must not be compared.
    speedup: dict[str, float]
    # The same at the run's evaluations after a tenth of its steps, to the value that it has there.
    speedups: Series
    sentence: str  # the result
    notes: list[str]  # what a reader must know before quoting it


def compare_all(runs: Sequence[Run], task: str | None) -> list[Comparison]:
    """Compares every sparse run with the baseline, by their held-out values on the task.

    Runs that did not begin from scratch are left out, since their steps lack those of the earlier
    run, and so are runs without an evaluation after step 0. The last value of the baseline must be
    a number.
    """
    curves = [
        (run, curve)
        for run in runs
        if run.from_scratch
        and (curve := run.evals.get(task or "")) is not None
        and len(_known(curve)[0])
    ]

    def last(found: tuple[Run, Series]) -> float:
        return found[1].last(QUALITY)

    sparse = [found for found in curves if found[0].sparse]
    ended = [found for found in curves if math.isfinite(last(found))]
    dense = [found for found in ended if found[0].dense]
    if dense:
        baseline = max(dense, key=last)
    elif sparse_ended := [found for found in ended if found[0].sparse]:
        baseline = min(sparse_ended, key=last)
    else:
        return []
    return [_compare(*baseline, *found) for found in sparse if found is not baseline]


def _compare(baseline: Run, baseline_curve: Series, run: Run, curve: Series) -> Comparison:
    notes, apart = [], set()
    if not math.isfinite(curve.last(QUALITY)):
        notes.append(f"{run.name}'s last value is not a number: it may have diverged")
    for key, what in _MUST_AGREE.items():
        if baseline.facts.get(key) != run.facts.get(key):
            apart.add(what)
            names = f"{baseline.name} and {run.name}"
            values = f"{baseline.fact(key)} and {run.fact(key)}"
            notes.append(f"{names} differ in {key} ({values}): do not compare their {what}")

    target = baseline_curve.last(QUALITY)
    reached = first_reached(curve, target)
    speedup = {
        "steps": float(baseline_curve.step[-1]) / reached.step,
        "time": float(baseline_curve.seconds[-1]) / (reached.seconds or math.nan),
    }
    speedups = _speedups(baseline_curve, curve)
    for what in apart:
        speedup[what] = math.nan
        speedups.values[what][:] = math.nan

    final = f"{baseline.name}'s {'latest' if baseline.unfinished else 'final'} {rounded(target)}"
    text = _where_reached(final, run, curve, reached, speedup)
    if "steps" not in apart:
        text = _with_lead(text, baseline, run, baseline_curve, curve)
    return Comparison(baseline, run, target, reached, speedup, speedups, f"{text}.", notes)


def _where_reached(
    final: str, run: Run, curve: Series, reached: Reached, speedup: dict[str, float]
) -> str:
    """Says where the run has the baseline's final value, and how many times sooner, if known."""
    if not math.isfinite(reached.step):
        return f"{run.name} does not reach {final} in {curve.step[-1]:,} steps"
    text = f"{run.name} reaches {final} at step {reached.step:,.0f} of {curve.step[-1]:,}"
    known = [f"{ratio:.2f} in {what}" for what, ratio in speedup.items() if math.isfinite(ratio)]
    if not known:
        return text
    first = known[0].replace(" in", " times sooner in")
    bound = "at least " if reached.at_first else ""
    return f"{text}: {bound}{', '.join([first, *known[1:]])}"


def _with_lead(text: str, baseline: Run, run: Run, baseline_curve: Series, curve: Series) -> str:
    """Adds the lead at the last common step to the text, or replaces it: the runs are level."""
    step, lead = _lead(baseline_curve, curve)
    ahead = f"{abs(lead):.3f} nats {'ahead' if lead > 0 else 'behind'}"
    scatter = max(_scatter(baseline_curve), _scatter(curve))
    if abs(lead) < max(scatter, _NO_LEAD):
        text = f"{run.name} is level with {baseline.name} at step {step:,}: {ahead}"
        return text + (f", where the curves scatter by {scatter:.3f}" if scatter > _NO_LEAD else "")
    return f"{text}; at step {step:,} it is {ahead}" if math.isfinite(lead) else text


def first_reached(curve: Series, target: float) -> Reached:
    """Finds where a held-out curve first has a value, after step 0."""
    after = curve.step > 0
    values, steps, times = curve.get(QUALITY)[after], curve.step[after], curve.seconds[after]
    reached = np.flatnonzero(values >= target)
    if not len(reached):
        return Reached()
    i = int(reached[0])
    if i == 0 or not values[i - 1] < target:
        return Reached(float(steps[i]), float(times[i]), at_first=True)
    part = float((target - values[i - 1]) / (values[i] - values[i - 1]))
    step, seconds = (x[i - 1] + part * (x[i] - x[i - 1]) for x in (steps, times))
    return Reached(float(step), float(seconds))


def _known(curve: Series) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps after 0 at which the quality is known [T], and its values [T]."""
    there = np.isfinite(curve.get(QUALITY)) & (curve.step > 0)
    return curve.step[there], curve.get(QUALITY)[there]


def _lead(baseline: Series, curve: Series) -> tuple[int, float]:
    """Returns the last common step, and the lead of `curve` there in nats, or NaN."""
    curves = _known(baseline), _known(curve)
    step = int(min(steps[-1] for steps, _ in curves))
    values = [np.interp(step, *curve, left=math.nan) for curve in curves]
    return step, float(values[1] - values[0])


def _scatter(curve: Series) -> float:
    """Estimates how far evaluations scatter about a smooth curve, nats; 0 for too few of them.

    This is the standard deviation of how far an evaluation lies above the straight line through
    its two neighbours, over the second half of the steps.
    """
    step, value = _known(curve)
    i = np.arange(1, len(step) - 1)
    i = i[step[i] >= step[-1:] / 2]
    if len(i) < _FEWEST:
        return 0.0
    part = (step[i] - step[i - 1]) / (step[i + 1] - step[i - 1])
    above = value[i] - (value[i - 1] + part * (value[i + 1] - value[i - 1]))
    return float(above.std(ddof=1))


def _speedups(baseline: Series, curve: Series) -> Series:
    """Computes `Comparison.speedups`, without the first steps: one more is a large factor there."""
    later = curve.step >= max(1, curve.step[-1] / 10)
    step, seconds = curve.step[later], curve.seconds[later]
    reached = [first_reached(baseline, value) for value in curve.get(QUALITY)[later]]
    # The baseline's first evaluation is an upper bound, which would read as a speed-up.
    exact = [Reached() if r.at_first else r for r in reached]
    in_steps = np.array([r.step for r in exact]) / step
    in_time = np.array([r.seconds for r in exact]) / np.where(seconds > 0, seconds, np.nan)
    return Series(step, seconds, {"steps": in_steps, "time": in_time})
