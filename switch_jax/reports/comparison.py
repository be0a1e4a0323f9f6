"""Sparse runs against dense ones: speed-ups, leads, and where the curves cross.

Between two evaluations a curve is taken as straight.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from switch_jax.reports.configurations import Configuration
from switch_jax.reports.records import CONTENT_QUALITY, QUALITY
from switch_jax.reports.runs import Run
from switch_jax.reports.series import Series
from switch_jax.units import as_text


class Reached(NamedTuple):
    """Where a curve first has a value; NaN where it never does."""

    step: float = math.nan
    seconds: float = math.nan
    at_first: bool = False  # at its first evaluation, so the others are upper bounds


class Lead(NamedTuple):
    """How far a sparse run is ahead of a dense one; neither has points where nothing is known."""

    step: np.ndarray  # [T], after 0, where both curves are known, ascending
    nats: np.ndarray  # [T]; positive: the sparse run is ahead


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A sparse run beside a dense one, by their held-out curves.

    The speed-up is the paper's (footnote 9): steps of the dense run over steps the sparse run takes
    to the dense run's final quality; likewise for time.
    """

    dense: Run
    sparse: Run
    dense_curve: Series
    sparse_curve: Series

    @property
    def target(self) -> float:
        """The dense run's final held-out negative log perplexity, nats."""
        return self.dense_curve.last(QUALITY)

    @property
    def dense_step(self) -> int:
        """Of the dense run's final value."""
        return int(self.dense_curve.step[-1])

    @cached_property
    def reached(self) -> Reached:
        """Where the sparse run reaches the target."""
        return first_reached(self.sparse_curve, self.target)

    @property
    def has_reached(self) -> bool:
        return math.isfinite(self.reached.step)

    @property
    def step_speedup(self) -> float:
        """NaN where the sparse run never gets there, as in time."""
        return self.dense_step / self.reached.step

    @property
    def time_speedup(self) -> float:
        seconds = self.reached.seconds
        return float(self.dense_curve.seconds[-1]) / seconds if seconds else math.nan

    @property
    def same_flops(self) -> bool:
        """Whether a token costs both the same, so that a step of one is a step of the other."""
        dense, sparse = (run.facts.get("flops_per_token") for run in (self.dense, self.sparse))
        return bool(dense == sparse)

    @cached_property
    def lead(self) -> Lead:
        return _lead(self.dense_curve, self.sparse_curve, QUALITY)

    @property
    def final_lead(self) -> float:
        """The lead at the last step that both curves reach; NaN where there is none."""
        return float(self.lead.nats[-1]) if len(self.lead.nats) else math.nan

    @property
    def content_lead(self) -> float:
        """At the last step of both, without sentinels and EOS; NaN where it is not known."""
        lead = _lead(self.dense_curve, self.sparse_curve, CONTENT_QUALITY)
        return float(lead.nats[-1]) if len(lead.nats) else math.nan

    @property
    def in_front_from(self) -> float:
        """The step from which on the run that is in front at the end is in front.

        The first step of `lead` if it always is; NaN where neither is in front.
        """
        (step, lead), end = self.lead, self.final_lead
        if not len(lead) or end == 0:
            return math.nan
        others = np.flatnonzero(lead * end <= 0)
        if not len(others):
            return float(step[0])
        i = int(others[-1])
        part = lead[i] / (lead[i] - lead[i + 1])
        return float(step[i] + part * (step[i + 1] - step[i]))

    @property
    def always_in_front(self) -> bool:
        """Whether the run in front at the end was so at each evaluation after step 0."""
        return bool(len(self.lead.nats)) and bool((self.lead.nats * self.final_lead > 0).all())

    @cached_property
    def best_of_both(self) -> tuple[float, float]:
        """The highest value that both reach, and the dense run's time to it over the sparse run's.

        NaN where it is not known, as where one of them has the value at its first evaluation.
        """
        curves = (self.dense_curve, self.sparse_curve)
        highest = [max(_known(curve, QUALITY)[1], default=math.nan) for curve in curves]
        best = float(np.min(highest))
        reached = [first_reached(curve, best) for curve in curves]
        dense_seconds, seconds = (math.nan if r.at_first else r.seconds for r in reached)
        return best, dense_seconds / seconds if seconds else math.nan

    @cached_property
    def speedups(self) -> Series:
        """The "steps" and "time" of the dense run over those of the sparse run to the same value.

        At the sparse run's evaluations after step 0; NaN where the dense run never gets there.
        """
        curve = self.sparse_curve
        trained = curve.step > 0
        reached = [first_reached(self.dense_curve, x) for x in curve.get(QUALITY)[trained]]
        # Without step 0 the first evaluation is an upper bound, which would read as a speed-up.
        exact = [Reached() if r.at_first else r for r in reached]
        step, seconds = curve.step[trained], curve.seconds[trained]
        with np.errstate(divide="ignore", invalid="ignore"):
            in_steps = np.array([r.step for r in exact]) / step
            in_time = np.array([r.seconds for r in exact]) / seconds
        in_time[~np.isfinite(in_time)] = math.nan
        return Series(step, seconds, {"steps": in_steps, "time": in_time})

    @property
    def unfinished(self) -> bool:
        """Whether one of the two is still going."""
        return self.dense.unfinished or self.sparse.unfinished


@dataclasses.dataclass(frozen=True)
class ComparisonOverSeeds:
    """A sparse configuration beside a dense one."""

    dense: Configuration
    sparse: Configuration
    pairs: tuple[Comparison, ...]  # see `pairs_of_runs`; the finished ones, if there are any

    @property
    def in_number(self) -> str:
        """How many seeds were compared; of pairs of runs, where dense and sparse have others."""
        same = all(pair.dense.seed == pair.sparse.seed for pair in self.pairs)
        return f"{len(self.pairs)} {'seeds' if same else 'pairs of runs'}"


def compare(dense: Run, sparse: Run, task: str | None) -> Comparison | None:
    """Compares the held-out curves of a dense and a sparse run.

    None where there is nothing to compare: no evaluation after step 0 in one of them, or a dense
    run that ended with a value that is not finite.
    """
    curves = [run.evals.get(task or "") for run in (dense, sparse)]
    known = [curve for curve in curves if curve is not None and curve.step[-1] > 0]
    if len(known) < 2 or not math.isfinite(known[0].last(QUALITY)):
        return None
    return Comparison(dense, sparse, *known)


def compare_all(
    configurations: Sequence[Configuration], task: str | None
) -> list[ComparisonOverSeeds]:
    """Compares every dense configuration with every sparse one, of those that began from scratch.

    The steps of a fine-tuned run do not count those of its pretraining.
    """
    found = []
    dense = [c for c in configurations if c.dense]
    for reference, sparse in itertools.product(dense, (c for c in configurations if c.sparse)):
        runs = pairs_of_runs(reference, sparse)
        pairs = tuple(pair for d, s in runs if (pair := compare(d, s, task)) is not None)
        if pairs:
            finished = tuple(pair for pair in pairs if not pair.unfinished)
            found.append(ComparisonOverSeeds(reference, sparse, finished or pairs))
    return found


def pairs_of_runs(dense: Configuration, sparse: Configuration) -> list[tuple[Run, Run]]:
    """Runs of the same seed, which saw the same batches; all pairs if no seed is in common."""
    pairs = itertools.product(dense.runs, sparse.runs)
    runs = [(d, s) for d, s in pairs if d.from_scratch and s.from_scratch]
    same_seed = [(d, s) for d, s in runs if d.seed is not None and d.seed == s.seed]
    return same_seed or runs


def caveats(pairs: Sequence[Comparison]) -> list[str]:
    """What a reader must know before quoting the speed-ups, in sentences."""
    notes = []
    differing: dict[tuple[str, str, str], list[str]] = {}
    for pair in pairs:
        dense, sparse = pair.dense, pair.sparse
        if dense.unfinished:
            notes.append(
                f"{dense.name} is not finished (step {dense.last_step:,} of "
                f"{dense.facts['train_steps']:,}): its final value is the value so far."
            )
        if not math.isfinite(pair.sparse_curve.last(QUALITY)):
            notes.append(f"{sparse.name}'s final value is not a number: it may have diverged.")
        if pair.reached.at_first:
            notes.append(
                f"{sparse.name} has {dense.name}'s final value at its first evaluation, "
                f"step {pair.reached.step:,.0f}: the speed-up is at least what is stated."
            )
        notes += [
            f"{run.name} {what} (docs/bad_steps.md), so it did not learn from the same batches as "
            "others."
            for run in (dense, sparse)
            if (what := _bad_steps(run))
        ]
        for key, what in (
            ("batch_tokens", "tokens per batch differ, so a step is not the same amount of text"),
            ("flops_per_token", "FLOPs per token differ, so a step is not the same computation"),
            ("device", "devices differ, so compare steps, not time"),
        ):
            a, b = dense.facts.get(key), sparse.facts.get(key)
            if a != b:
                values = f"{as_text(a)} and {as_text(b)}"
                differing.setdefault((dense.name, what, values), []).append(sparse.name)
    notes += [
        f"{dense} and {', '.join(names)}: {what} ({values})."
        for (dense, what, values), names in differing.items()
    ]
    return list(dict.fromkeys(notes))


def _bad_steps(run: Run) -> str:
    """What a run's bad steps led to, in words; "" where it had none."""
    found = [f"skipped {run.skipped_steps:,} steps as bad"] if run.skipped_steps else []
    if run.rollbacks:
        times = "once" if run.rollbacks == 1 else f"{run.rollbacks:,} times"
        found.append(f"returned {times} to a checkpoint and went on with new data")
    return " and ".join(found)


def _lead(dense: Series, sparse: Series, name: str) -> Lead:
    (dense_step, dense_value), (sparse_step, sparse_value) = (
        _known(series, name) for series in (dense, sparse)
    )
    if not len(dense_step) or not len(sparse_step):
        return Lead(np.array([]), np.array([]))
    steps = np.union1d(dense_step, sparse_step)
    first, last = max(dense_step[0], sparse_step[0]), min(dense_step[-1], sparse_step[-1])
    steps = steps[(steps >= first) & (steps <= last)].astype(float)
    ahead = np.interp(steps, sparse_step, sparse_value) - np.interp(steps, dense_step, dense_value)
    return Lead(steps, ahead)


def _known(series: Series, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps after 0 at which a number is known [T], and its values [T]."""
    known = np.isfinite(series.get(name)) & (series.step > 0)
    return series.step[known], series.get(name)[known]


def first_reached(curve: Series, target: float) -> Reached:
    """Where a held-out curve first has a value.

    The untrained model of step 0 only serves as the start of the first stretch.
    """
    values = curve.get(QUALITY)
    reached = np.flatnonzero((values >= target) & (curve.step > 0))
    if not len(reached):
        return Reached()
    i = int(reached[0])
    if i == 0 or not values[i - 1] < target:
        return Reached(float(curve.step[i]), float(curve.seconds[i]), at_first=True)
    part = float((target - values[i - 1]) / (values[i] - values[i - 1]))
    step, seconds = (
        float(x[i - 1] + part * (x[i] - x[i - 1])) for x in (curve.step, curve.seconds)
    )
    return Reached(step, seconds)
