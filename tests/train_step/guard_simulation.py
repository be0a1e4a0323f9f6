"""Runs of many kinds under the guard, simulated: which it stops, and which batches it skips.

    python -m tests.train_step.guard_simulation

A run is reduced to its loss and gradient norm. Both have a level that depends on the updates done:
a skipped step does not change it, and a return to a checkpoint restores it, with the guard's
history. The batch multiplies the level, by noise and by what is wrong with it; a skipped batch does
not come again.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from switch_jax.config import GuardConfig
from switch_jax.run_folder import RunFolder
from switch_jax.train_step.bad_step_guard import Guard, init_guard, judge
from switch_jax.trainer.bad_steps import BadSteps

STEPS, SEEDS, CHECKPOINT_PERIOD = 500, 40, 50
EVENT = 250  # the update or the batch that it happens at
_UPDATES, _BATCHES = np.arange(STEPS + 1), np.arange(STEPS)
_SPOILT = (_BATCHES > EVENT) & (_BATCHES % 50 == 40)
_IN_A_ROW = (EVENT <= _BATCHES) & (_BATCHES < EVENT + 25)

Rng = np.random.Generator


class Kind(NamedTuple):
    """A kind of runs; arrays are relative.

    Attributes:
      name: in words.
      loss, norm: [STEPS + 1], after so many updates.
      noise: standard deviations of the logarithms of loss and norm.
      data: what the loss of each batch is multiplied by; of a generator.
      bad, bad_loss, bad_norm: which batches are spoilt, and what they multiply.
      stops: whether the run is to be stopped.
    """

    name: str
    loss: np.ndarray
    norm: np.ndarray = np.ones(STEPS + 1)
    noise: tuple[float, float] = (0.05, 0.05)
    data: Callable[[Rng], np.ndarray] = lambda rng: np.ones(STEPS)
    bad: np.ndarray = np.zeros(STEPS, bool)
    bad_loss: float = 1.0
    bad_norm: float = 1.0
    stops: bool = False


class Outcome(NamedTuple):
    """Of the runs of a kind.

    Attributes:
      stopped: runs that did not reach their end.
      lost: healthy batches that were skipped, in the mean of the runs.
      learnt: spoilt batches that were not skipped, of all runs.
      spoilt: batches, of all runs.
      returns: to a checkpoint, in the mean of the runs.
    """

    stopped: int
    lost: float
    learnt: int
    spoilt: int
    returns: float


def _rise(factor: float, updates: int) -> np.ndarray:
    """From 1 to `factor` within so many updates from the event on, and staying there."""
    return factor ** np.clip((_UPDATES - EVENT) / updates, 0, 1)


def _times(factor: float, share: float) -> Callable[[Rng], np.ndarray]:
    """A share of the batches, taken at random, has as many times the loss."""
    return lambda rng: np.where(rng.random(STEPS) < share, factor, 1.0)


def _wave(rng: Rng) -> np.ndarray:
    """Files that are harder and easier by a tenth, some 100 steps each."""
    return 1 + 0.1 * np.sin(2 * np.pi * (_BATCHES / 200 + rng.random()))


def _wider(rng: Rng) -> np.ndarray:
    """Noise that grows from 2 % to 6 %."""
    return np.exp(np.where(_BATCHES < EVENT, 0.02, 0.06) * rng.standard_normal(STEPS))


FALLS = 3 + 3 * np.exp(-_UPDATES / 50)
LEARNS = FALLS * _rise(0.8, 50)
TUNED = 0.3 + np.exp(-_UPDATES / 50)
SMALL = (0.005, 0.05)

HEALTHY = (
    Kind("steady", FALLS),
    Kind("steady, 0.5 % noise", FALLS, noise=SMALL),
    Kind("steady, norm with 30 % noise", FALLS, noise=(0.02, 0.3)),
    Kind("norm x1.5 in 5 updates, loss falls", LEARNS, _rise(1.5, 5)),
    Kind("norm x2 in 5 updates, loss falls", LEARNS, _rise(2, 5)),
    Kind("norm x3 in 10 updates, loss falls", LEARNS, _rise(3, 10)),
    Kind("norm x4 in 20 updates, loss falls", LEARNS, _rise(4, 20)),
    Kind("norm x10 at once, loss x0.7 in 20", FALLS * _rise(0.7, 20), _rise(10, 1)),
    Kind("norm x10 in 30 updates and back", LEARNS, _rise(10, 30) * _rise(0.1, 100)),
    Kind("warm-up: norm /5, then x2", FALLS, (1 + 4 * np.exp(-_UPDATES / 20)) * _rise(2, 200)),
    Kind("batch an eighth: norm and noise x3", FALLS, _rise(3, 1), (0.0, 0.05), _wider),
    Kind("drift: loss +30 %, norm x4 in 250", FALLS * _rise(1.3, 250), _rise(4, 250)),
    Kind("data in waves of 10 %", FALLS, noise=(0.01, 0.05), data=_wave),
    Kind("a fifth of the batches x5", TUNED, noise=(0.1, 0.1), data=_times(5, 0.2)),
    Kind("loss near 0, factors of e", TUNED - 0.299, noise=(1.0, 1.0)),
    Kind("constant loss", np.full(STEPS + 1, 3.0), noise=(0.0, 0.05)),
    Kind("no loss at all", np.maximum(1 - _UPDATES / 50, 0.0), np.maximum(1 - _UPDATES / 50, 0.0)),
)
SPOILT = (
    Kind("single batches: loss x2.5, norm x5", FALLS, bad=_SPOILT, bad_loss=2.5, bad_norm=5.0),
    Kind("single batches: loss x1.3, 1 % noise", FALLS, noise=(0.01, 0.05), bad=_SPOILT,
         bad_loss=1.3),
    Kind("single batches: norm x5 alone", FALLS, bad=_SPOILT, bad_norm=5.0),
    Kind("single batches: not a number", FALLS, bad=_SPOILT, bad_loss=np.nan),
    Kind("25 in a row: loss x2.5, norm x5", FALLS, bad=_IN_A_ROW, bad_loss=2.5, bad_norm=5.0),
    Kind("25 in a row: not a number", FALLS, bad=_IN_A_ROW, bad_norm=np.nan),
)  # fmt: skip
DIVERGING = tuple(
    Kind(name, FALLS * loss, norm, noise, stops=True)
    for name, loss, norm, noise in (
        ("diverges by 10 % an update", _rise(3, 12), _rise(10, 12), (0.05, 0.05)),
        ("diverges by 5 % an update", _rise(3, 23), _rise(10, 23), (0.05, 0.05)),
        ("diverges by 2 % an update", _rise(3, 56), _rise(10, 56), (0.05, 0.05)),
        ("diverges by 0.5 %, 0.5 % noise", _rise(3, 220), _rise(10, 220), SMALL),
        ("loss x2 at once, for good", _rise(2, 1), _rise(1, 1), (0.05, 0.05)),
        ("norm x10 in 10, then loss x2 in 20", np.roll(_rise(2, 20), 10), _rise(10, 10), SMALL),
        ("not a number, for good", np.where(_UPDATES < EVENT, 1, np.nan), _rise(1, 1), SMALL),
    )
)


class _Run:
    """The host's part of a run, as `trainer.loop` does it.

    `levels` [STEPS + 1, 2] are of loss and norm, `factors` [STEPS, 2] what a batch makes of them.
    """

    def __init__(self, kind: Kind, config: GuardConfig, seed: int) -> None:
        rng = np.random.default_rng(seed)
        factors = np.exp(rng.standard_normal((STEPS, 2)) * kind.noise)
        factors[:, 0] *= kind.data(rng)
        factors[kind.bad] *= (kind.bad_loss, kind.bad_norm)
        self.levels, self.factors = np.stack([kind.loss, kind.norm], 1), factors
        self._bad, self._seen = BadSteps(config, RunFolder(Path())), 0
        self._max_rollbacks = config.max_rollbacks
        self.step = self.updates = self.returns = 0
        self.stopped = False
        self.skipped = np.zeros(STEPS, bool)

    def did(self, batch: int, bad: bool, in_a_row: int) -> str | None:
        """What follows from a step: 'save', 'back' or nothing."""
        self.step += 1
        self.updates += not bad
        self.skipped[batch] = bad
        # The step before is looked at while this one runs; this one where something depends on it.
        self._bad.in_a_row, self._seen = self._seen, in_a_row
        save = self.step % CHECKPOINT_PERIOD == 0 and self._bad.may_save()
        if save or self._bad.too_many():
            self._bad.in_a_row = in_a_row
        if self._bad.too_many():
            self.stopped = self._bad.rollbacks >= self._max_rollbacks
            if self.stopped:
                return None
            self._bad.went_back()
            self.returns, self._seen = self.returns + 1, 0
            return "back"
        if save:
            self._bad.saved()
            return "save"
        return None


def simulate(
    kinds: Sequence[Kind], config: GuardConfig, judge: Callable = judge, seeds: int = SEEDS
) -> list[Outcome]:
    """Runs of each kind with seeds from 0 on."""
    runs = [_Run(kind, config, seed) for kind in kinds for seed in range(seeds)]
    judge_all = jax.jit(
        jax.vmap(lambda guard, values: judge(guard, config, *values)[::2])  # without the limits
    )
    # Of all runs, along the first axis.
    guards = jax.tree.map(lambda x: np.stack([x] * len(runs)), init_guard(config))
    saved = jax.tree.map(np.copy, guards)
    saved_at = [(0, 0)] * len(runs)
    levels, factors = (np.stack([getattr(run, x) for run in runs]) for x in ("levels", "factors"))
    each = np.arange(len(runs))
    for batch in range(STEPS):
        updates = [run.updates for run in runs]
        values = np.float32(levels[each, updates] * factors[:, batch])  # [runs, 2]
        bad, guards = jax.tree.map(np.array, judge_all(guards, values))
        for i, run in enumerate(runs):
            if run.stopped:
                continue
            event = run.did(batch, bool(bad[i]), int(guards.in_a_row[i]))
            if event == "save":
                _copy(saved, guards, i)
                saved_at[i] = run.step, run.updates
            if event == "back":
                _copy(guards, saved, i)
                run.step, run.updates = saved_at[i]
    outcomes = []
    for number, kind in enumerate(kinds):
        own = runs[number * seeds : (number + 1) * seeds]
        skipped = np.stack([run.skipped for run in own])
        outcomes.append(
            Outcome(
                stopped=sum(run.stopped for run in own),
                lost=skipped[:, ~kind.bad].sum() / seeds,
                learnt=int((~skipped[:, kind.bad]).sum()),
                spoilt=seeds * int(kind.bad.sum()),
                returns=sum(run.returns for run in own) / seeds,
            )
        )
    return outcomes


def _copy(to: Guard, source: Guard, number: int) -> None:
    for a, b in zip(to, source, strict=True):
        a[number] = b[number]


def main() -> None:
    print(f"| {SEEDS} runs of {STEPS} steps | stopped | rollbacks | healthy batches skipped "
          "| spoilt ones not skipped |\n|---|---|---|---|---|")  # fmt: skip
    kinds = HEALTHY + SPOILT + DIVERGING
    for kind, o in zip(kinds, simulate(kinds, GuardConfig()), strict=True):
        lost = "" if kind.stops else f"{o.lost:.1f}"
        spoilt = f"{o.learnt} of {o.spoilt}" if o.spoilt else ""
        print(f"| {kind.name} | {o.stopped} | {o.returns:.1f} | {lost} | {spoilt} |")


if __name__ == "__main__":
    main()
