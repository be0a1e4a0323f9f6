"""Which checkpoints stay when a newer one is saved."""

import math
from collections.abc import Sequence
from typing import Any


class NewestAndBest:
    """Keeps the newest checkpoints and the best ones; a preservation policy of Orbax.

    Of equal ones the earliest are the best, as for `best_step` and `trainer.evaluation.Best`.

    Attributes:
      metrics: by step, the number that the best are chosen by, larger is better; None or NaN: the
        checkpoint cannot be among the best.
    """

    def __init__(self, keep_newest: int, keep_best: int) -> None:
        self._keep_newest, self._keep_best = keep_newest, keep_best
        self.metrics: dict[int, float | None] = {}

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Of each checkpoint whether it stays; Orbax calls it after each save."""
        steps = sorted(checkpoint.step for checkpoint in checkpoints)
        metrics = {step: self.metrics.get(step) for step in steps}
        known = {step: x for step, x in metrics.items() if x is not None and not math.isnan(x)}
        ascending = sorted(known, key=lambda step: (known[step], -step))
        best = ascending[-self._keep_best :] if self._keep_best else []
        kept = {*steps[-self._keep_newest :], *best}
        return [checkpoint.step in kept for checkpoint in checkpoints]
