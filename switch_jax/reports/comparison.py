"""Sparse runs against dense ones: speed-ups, leads, and where the curves cross.

Between two evaluations a curve is taken as straight.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from switch_jax.reports.configurations import Configuration
from switch_jax.reports.held_out import CONTENT_QUALITY, QUALITY, held_out
from switch_jax.reports.runs import Run, Series
from switch_jax.units import as_text


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A sparse run beside a dense one.

    The speed-up is the paper's (footnote 9): steps of the dense run over steps the sparse run takes
    to the dense run's final quality; likewise for time.

    Attributes:
      target: the dense run's final held-out negative log perplexity, nats.
      dense_step, dense_seconds: of the dense run's final value.
      sparse_final: the sparse run's final value, which may be no number.
      step, seconds: where the sparse run reaches the target; None if it never does.
      at_first: its first evaluation is at or above the target, so `step` is an upper bound.
      lead_step: [T] float, steps after 0 where both curves are known, ascending.
      lead: [T], the sparse run's value there less the dense run's, nats; positive: it is ahead.
      content_lead: at the last step of both, without sentinels and EOS; NaN where it is not known.
      best_of_both: the highest value that both reach.
      time_ratio: time of the dense run to that value over time of the sparse run; NaN where it is
        not known, as where one of them has the value at its first evaluation.
      curve: the speed-up in the course of the sparse run.
    """

    dense: Run
    sparse: Run
    target: float
    dense_step: int
    dense_seconds: float
    sparse_final: float
    step: float | None
    seconds: float | None
    at_first: bool
    lead_step: np.ndarray
    lead: np.ndarray
    content_lead: float
    best_of_both: float
    time_ratio: float
    curve: "SpeedupCurve"

    @property
    def step_speedup(self) -> float | None:
        return None if self.step is None else self.dense_step / self.step

    @property
    def time_speedup(self) -> float | None:
        return self.dense_seconds / self.seconds if self.seconds else None

    @property
    def same_flops(self) -> bool:
        """Whether a token costs both the same, so that a step of one is a step of the other."""
        dense, sparse = (run.facts.get("flops_per_token") for run in (self.dense, self.sparse))
        return bool(dense == sparse)

    @property
    def final_lead(self) -> float:
        """The lead at the last step that both curves reach; NaN where there is none."""
        return float(self.lead[-1]) if len(self.lead) else math.nan

    @property
    def in_front_from(self) -> float | None:
        """The step from which on the run that is in front at the end is in front.

        The first step of `lead_step` if it always is; None where neither is in front.
        """
        end = self.final_lead
        if not len(self.lead) or end == 0:
            return None
        others = np.flatnonzero(self.lead * end <= 0)
        if not len(others):
            return float(self.lead_step[0])
        i = int(others[-1])
        part = self.lead[i] / (self.lead[i] - self.lead[i + 1])
        return float(self.lead_step[i] + part * (self.lead_step[i + 1] - self.lead_step[i]))

    @property
    def always_in_front(self) -> bool:
        """Whether the run in front at the end was so at each evaluation after step 0."""
        return bool(len(self.lead)) and bool((self.lead * self.final_lead > 0).all())

    @property
    def unfinished(self) -> bool:
        """Whether one of the two is still going."""
        return self.dense.unfinished or self.sparse.unfinished


@dataclasses.dataclass(frozen=True)
class SpeedupCurve:
    """Steps (time) of the dense run over those of the sparse run to the same value.

    Attributes:
      step, seconds: [T], of the sparse run's evaluations after step 0.
      in_steps, in_time: [T]; NaN where the dense run never gets to the sparse run's value.
    """

    step: np.ndarray
    seconds: np.ndarray
    in_steps: np.ndarray
    in_time: np.ndarray


@dataclasses.dataclass(frozen=True)
class ComparisonOverSeeds:
    """A sparse configuration beside a dense one.

    Attributes:
      pairs: their runs of the same seed; all pairs where they have no seed in common. Those still
        going are left out where others are finished.
    """

    dense: Configuration
    sparse: Configuration
    pairs: tuple[Comparison, ...]


def compare(dense: Run, sparse: Run, task: str | None) -> Comparison | None:
    """Compares the held-out curves of a dense and a sparse run.

    None where there is nothing to compare: no evaluation after step 0 in one of them, or a dense
    run that ended with a value that is not finite.
    """
    reference, curve = held_out(dense, task), held_out(sparse, task)
    if reference is None or curve is None or reference.step[-1] == 0 or curve.step[-1] == 0:
        return None
    target = reference.last(QUALITY)
    if not math.isfinite(target):
        return None
    reached = first_reached(curve, target)
    lead_step, lead = _lead(reference, curve, QUALITY)
    _, content_lead = _lead(reference, curve, CONTENT_QUALITY)
    best_of_both, time_ratio = _best_of_both(reference, curve)
    return Comparison(
        dense=dense,
        sparse=sparse,
        target=target,
        dense_step=int(reference.step[-1]),
        dense_seconds=float(reference.seconds[-1]),
        sparse_final=curve.last(QUALITY),
        step=reached[0] if reached else None,
        seconds=reached[1] if reached else None,
        at_first=bool(reached and reached[2]),
        lead_step=lead_step,
        lead=lead,
        content_lead=float(content_lead[-1]) if len(content_lead) else math.nan,
        best_of_both=best_of_both,
        time_ratio=time_ratio,
        curve=_speedup_curve(reference, curve),
    )


def compare_all(
    configurations: Sequence[Configuration], task: str | None
) -> list[ComparisonOverSeeds]:
    """Compares every dense configuration with every sparse one, of those that began from scratch.

    The steps of a fine-tuned run do not count those of its pretraining.
    """
    found = []
    dense = [c for c in configurations if c.dense]
    for reference, sparse in itertools.product(dense, (c for c in configurations if c.sparse)):
        pairs = tuple(
            pair
            for d, s in pairs_of_runs(reference, sparse)
            if (pair := compare(d, s, task)) is not None
        )
        if pairs:
            finished = tuple(pair for pair in pairs if not pair.unfinished)
            found.append(ComparisonOverSeeds(reference, sparse, finished or pairs))
    return found


def in_number(pairs: Sequence[Comparison]) -> str:
    """How many seeds were compared; of pairs of runs, where dense and sparse have other seeds."""
    same = all(pair.dense.seed == pair.sparse.seed for pair in pairs)
    return f"{len(pairs)} {'seeds' if same else 'pairs of runs'}"


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
        if not math.isfinite(pair.sparse_final):
            notes.append(f"{sparse.name}'s final value is not a number: it may have diverged.")
        if pair.at_first:
            notes.append(
                f"{sparse.name} has {dense.name}'s final value at its first evaluation, "
                f"step {pair.step:,.0f}: the speed-up is at least what is stated."
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


def pairs_of_runs(dense: Configuration, sparse: Configuration) -> list[tuple[Run, Run]]:
    """Runs of the same seed, which saw the same batches; all pairs if no seed is in common."""
    pairs = itertools.product(dense.runs, sparse.runs)
    runs = [(d, s) for d, s in pairs if d.from_scratch and s.from_scratch]
    same_seed = [(d, s) for d, s in runs if d.seed is not None and d.seed == s.seed]
    return same_seed or runs


def _lead(dense: Series, sparse: Series, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps after 0 where both curves are known [T], and how far the sparse one is ahead [T]."""
    known = [(s.step[ok], s.get(name)[ok]) for s in (dense, sparse) for ok in [_known(s, name)]]
    (dense_step, dense_value), (sparse_step, sparse_value) = known
    if not len(dense_step) or not len(sparse_step):
        return np.array([]), np.array([])
    steps = np.union1d(dense_step, sparse_step)
    first, last = max(dense_step[0], sparse_step[0]), min(dense_step[-1], sparse_step[-1])
    steps = steps[(steps >= first) & (steps <= last)].astype(float)
    lead = np.interp(steps, sparse_step, sparse_value) - np.interp(steps, dense_step, dense_value)
    return steps, lead


def _best_of_both(dense: Series, sparse: Series) -> tuple[float, float]:
    """The highest value that both reach, and the dense run's time to it over the sparse run's."""
    known = [s.get(QUALITY)[_known(s, QUALITY)] for s in (dense, sparse)]
    if not all(map(len, known)):
        return math.nan, math.nan
    best = min(float(values.max()) for values in known)
    reached = [first_reached(series, best) for series in (dense, sparse)]
    dense_seconds, seconds = (math.nan if r is None or r[2] else r[1] for r in reached)
    return best, dense_seconds / seconds if seconds else math.nan


def _known(series: Series, name: str) -> np.ndarray:
    return np.isfinite(series.get(name)) & (series.step > 0)


def first_reached(curve: Series, target: float) -> tuple[float, float, bool] | None:
    """Step and seconds at which a held-out curve first has a value, and if it had from the start.

    None if it never does. The untrained model of step 0 only serves as the start of the first
    stretch.
    """
    values = curve.get(QUALITY)
    reached = np.flatnonzero((values >= target) & (curve.step > 0))
    if not len(reached):
        return None
    i = int(reached[0])
    if i == 0 or not values[i - 1] < target:
        return float(curve.step[i]), float(curve.seconds[i]), True
    part = float((target - values[i - 1]) / (values[i] - values[i - 1]))
    step, seconds = (
        float(x[i - 1] + part * (x[i] - x[i - 1])) for x in (curve.step, curve.seconds)
    )
    return step, seconds, False


def _speedup_curve(dense: Series, sparse: Series) -> SpeedupCurve:
    trained = sparse.step > 0
    step, seconds = sparse.step[trained], sparse.seconds[trained]
    never = (math.nan, math.nan, False)
    reached = [first_reached(dense, x) or never for x in sparse.get(QUALITY)[trained]]
    # Without step 0 the first evaluation is only an upper bound, which would read as a speed-up.
    exact = [(math.nan, math.nan) if at_first else (s, t) for s, t, at_first in reached]
    dense_step, dense_seconds = np.array(exact, float).T
    with np.errstate(divide="ignore", invalid="ignore"):
        in_steps, in_time = dense_step / step, dense_seconds / seconds
    in_time[~np.isfinite(in_time)] = math.nan
    return SpeedupCurve(step, seconds, in_steps, in_time)
