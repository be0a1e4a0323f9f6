"""Decides which checkpoints stay when a newer one is saved."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Metric(NamedTuple):
    """The value by which the best are chosen, never None or NaN, and what it measures."""

    value: float | None
    of: Any = None


def comparable(metrics: Mapping[int, Metric | None]) -> dict[int, float]:
    """Returns by step the values that measure the same as the newest one."""
    numbers = {
        step: (metric.value, metric.of)
        for step, metric in metrics.items()
        if metric is not None and metric.value is not None and not math.isnan(metric.value)
    }
    _, newest = numbers[max(numbers)] if numbers else (None, None)
    return {step: value for step, (value, of) in numbers.items() if of == newest}


class NewestAndBest:
    """Keeps the newest checkpoints and the best ones by `metrics`; a preservation policy of Orbax.

    Among equals the earliest is the best, as for `best_step` and `best_evaluation.Best`.
    """

    def __init__(self, keep_newest: int, keep_best: int) -> None:
        self._keep_newest, self._keep_best = keep_newest, keep_best
        self.metrics: dict[int, Metric] = {}

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Says of each checkpoint whether it stays; Orbax calls this after each save."""
        steps = sorted(checkpoint.step for checkpoint in checkpoints)
        known = comparable({step: self.metrics.get(step) for step in steps})
        ascending = sorted(known, key=lambda step: (known[step], -step))
        best = ascending[-self._keep_best :] if self._keep_best else []
        kept = {*steps[-self._keep_newest :], *best}
        return [checkpoint.step in kept for checkpoint in checkpoints]
