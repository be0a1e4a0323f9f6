"""Compares runs with a baseline: speed-ups, and the result in a sentence.

The baseline is the dense run whose last held-out value is the best, and the sparse runs are
compared with it. Among sparse runs alone, or dense runs alone, it is the one whose last value is
the worst. A run that goes on is the baseline only where no other can be. Means of several seeds
are compared as runs are, and the sentence says how much is chance.

The speed-up is that of Fedus et al. 2022 (footnote 9): steps of the baseline over steps that the
other run needs for the baseline's final quality; likewise for time. Between two evaluations a curve
counts as straight, but not from step 0 on, where it is far from that.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from switch_jax.reports.chance import scatter, smallest_lead
from switch_jax.reports.records import QUALITY
from switch_jax.reports.runs import Run, Series, common_steps
from switch_jax.utils.units import duration, rounded

_NO_LEAD = 0.0005  # nats; a smaller lead is none
# Facts of run.json in which runs must agree, and what cannot be compared where they do not.
_MUST_AGREE = {"batch_tokens": "steps", "flops_per_token": "steps", "device": "time"}


class Reached(NamedTuple):
    """The step and time at which a curve first has a value; NaN if it never does."""

    step: float = math.nan
    seconds: float = math.nan
    at_first: bool = False  # at the first evaluation: step and seconds are upper bounds


class Lead(NamedTuple):
    """How far a run is ahead of the baseline, at the last step or second that both have."""

    at: float  # the step, or the seconds; NaN if they were evaluated at no step in common
    cut: bool  # whether one of them goes on after it
    nats: float  # NaN without such a step, or if a curve begins after these seconds
    smallest: float  # nats; a smaller one is chance; NaN with one seed of each
    seeds: tuple[int, int]  # how many the run has, and the baseline


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
    time_is_chance: bool  # whether the speed-up in time means nothing
    # The same at the run's evaluations after a tenth of its steps, to the value that it has there.
    speedups: Series
    sentence: str  # the result
    notes: list[str]  # what a reader must know before quoting it


def compare_all(runs: Sequence[Run], task: str | None) -> list[Comparison]:
    """Compares every sparse run with the baseline, or every dense one where no run is sparse.

    They are compared by their held-out values on the task. Runs that did not begin from scratch are
    left out, since their steps lack those of the earlier run, and so are runs without an evaluation
    after step 0. The last value of the baseline must be a number.
    """
    found = [run for run in runs if run.from_scratch and _is_evaluated(run, task)]
    dense, sparse = [run for run in found if run.dense], [run for run in found if run.sparse]

    def last(run: Run) -> float:
        return run.evals[str(task)].last(QUALITY)

    dense_ended, sparse_ended = (
        [run for run in of_kind if math.isfinite(last(run))] for of_kind in (dense, sparse)
    )
    if sparse and dense_ended:
        baseline = max(dense_ended, key=lambda run: (not run.unfinished, last(run)))
    elif of_one_kind := sparse_ended if sparse else dense_ended:
        baseline = min(of_one_kind, key=lambda run: (run.unfinished, last(run)))
    else:
        return []
    return [_compare(baseline, run, str(task)) for run in sparse or dense if run is not baseline]


def _is_evaluated(run: Run, task: str | None) -> bool:
    curve = run.evals.get(task or "")
    return curve is not None and len(curve.known(QUALITY).step) > 0


def _compare(baseline: Run, run: Run, task: str) -> Comparison:
    baseline_curve, curve = baseline.evals[task], run.evals[task]
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
    lead = _lead(baseline, run, task)
    scatters = max(scatter(baseline_curve), scatter(curve))
    doubt = _doubt_of_time(baseline, run, task) if math.isfinite(speedup["time"]) else ""
    if "steps" not in apart and _is_chance(lead, scatters):
        text = _level(baseline, run, lead, scatters)
    else:
        text += _how_far_ahead(lead) if "steps" not in apart else ""
        text += doubt
    found = reached, speedup, bool(doubt), speedups
    return Comparison(baseline, run, target, *found, f"{text}.", notes)


def _lead(baseline: Run, run: Run, task: str, in_time: bool = False) -> Lead:
    """Computes the lead at the last step at which all seeds were evaluated, or at equal time."""
    both = [[seed.evals[task].known(QUALITY) for seed in one.each_seed] for one in (run, baseline)]
    curves = [curve for of_one in both for curve in of_one]
    ends = [float((curve.seconds if in_time else curve.step)[-1]) for curve in curves]
    at = min(ends) if in_time else float(max(common_steps(curves), default=math.nan))
    ours, others = (np.array([_value_at(c, at, in_time) for c in of_one]) for of_one in both)
    nats, counts = float(ours.mean() - others.mean()), (len(ours), len(others))
    return Lead(at, at < max(ends), nats, smallest_lead(ours, others), counts)


def _value_at(curve: Series, where: float, in_time: bool) -> float:
    """Returns the quality at a step, or after a time in seconds; NaN before the first value."""
    positions = curve.seconds if in_time else curve.step
    return float(np.interp(where, positions, curve.get(QUALITY), left=math.nan))


def _is_chance(lead: Lead, scatters: float) -> bool:
    smallest = scatters if math.isnan(lead.smallest) else lead.smallest
    return abs(lead.nats) < max(smallest, _NO_LEAD)


def _level(baseline: Run, run: Run, lead: Lead, scatters: float) -> str:
    """Says that the lead is none."""
    where = f"step {lead.at:,.0f}" + (", the last that both have" if lead.cut else "")
    text = f"{run.name} is level with {baseline.name} at {where}: {_nats(lead)}{_of_seeds(lead)}"
    scattered = math.isnan(lead.smallest) and scatters > _NO_LEAD
    return f"{text}, where the curves scatter by {scatters:.3f}" if scattered else text


def _how_far_ahead(lead: Lead) -> str:
    """Says the lead, and how much of it would be chance."""
    if math.isnan(lead.at):
        return "; there is no step at which both were evaluated"
    where = f"step {lead.at:,.0f}" + (", the last that both have," if lead.cut else "")
    return f"; at {where} it is {_nats(lead)}{_of_seeds(lead)}"


def _nats(lead: Lead) -> str:
    return f"{abs(lead.nats):.3f} nats {'ahead' if lead.nats > 0 else 'behind'}"


def _of_seeds(lead: Lead) -> str:
    """Says which leads mean nothing; empty with one seed of each."""
    if math.isnan(lead.smallest):
        return ""
    one, other = lead.seeds
    seeds = f"{one} seeds of each" if one == other else f"{one} and {other} seeds"
    return f", and with {seeds} less than {lead.smallest:.3f} means nothing"


def _doubt_of_time(baseline: Run, run: Run, task: str) -> str:
    """Says that the ratio in time means nothing, where the lead at equal time is chance."""
    lead = _lead(baseline, run, task, in_time=True)
    if not abs(lead.nats) < lead.smallest:
        return ""
    text = f". The ratio in time means nothing: after {duration(lead.at)} of each it is "
    return text + f"{_nats(lead)}, less than the {lead.smallest:.3f} that chance makes"


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
