"""Bad steps on the host: counts those that the bad-step guard skipped, and decides to roll back."""

import math

import jax

from switch_jax.config import GuardConfig
from switch_jax.run_folder import RunFolder, write_bad_batch
from switch_jax.train_step.step import Metrics
from switch_jax.trainer.device_batches import DeviceBatch
from switch_jax.utils.errors import UserError

_JUDGED = ("loss", "loss_limit", "gradient_norm", "gradient_norm_limit")
# After so many good steps in a row whose gradients are all 0 a line says so.
_WITHOUT_GRADIENT = 10


class BadSteps:
    """Counts bad steps, describes them, and decides whether to save, to roll back, or to stop.

    `rollbacks` are those since the last good checkpoint.
    """

    def __init__(self, config: GuardConfig, folder: RunFolder) -> None:
        """Starts at 0; `folder`: the run's folder, where bad batches are written."""
        self._config, self._folder = config, folder
        self.in_a_row = self.rollbacks = 0
        self._last, self._written, self._without_gradient = "", 0, 0

    def describe(
        self, step: int, metrics: Metrics, batch: DeviceBatch
    ) -> tuple[str, dict[str, float]]:
        """A line on what is wrong with a skipped step, and the values of its record.

        Writes the batch if it is one of the first; UserError where that cannot be done.
        """
        values = {name: float(getattr(metrics, name)) for name in _JUDGED}
        loss, loss_limit, norm, norm_limit = values.values()
        self._last = (
            f"step {step} is bad and was skipped: {verdict('loss', loss, loss_limit)}, "
            f"{verdict('gradient norm', norm, norm_limit)}"
        )
        text, number = self._last, batch.position.batches
        if self._written < self._config.dumped_batches:
            self._written += 1
            path = write_bad_batch(self._folder, number, jax.process_index(), batch.host)
            text += f"; batch {number} is in {path}"
        return text, {"batch": number, **values}

    def warning(self, step: int, gradient_norm: float) -> str | None:
        """A line, once, where the gradient norm of many good steps in a row was exactly 0.

        To be asked after each good step, with its norm.
        """
        if self._without_gradient < _WITHOUT_GRADIENT:
            self._without_gradient = self._without_gradient + 1 if gradient_norm == 0 else 0
            if self._without_gradient == _WITHOUT_GRADIENT:
                return (
                    f"warning: the gradient norm of {_WITHOUT_GRADIENT} good steps in a row, up to "
                    f"step {step}, was exactly 0, so nothing is learnt: parameters are so large "
                    "that activations overflow, or there are no targets; if the rate was too high, "
                    "start again with a lower LEARNING_RATE"
                )
        return None

    def too_many(self) -> bool:
        """Whether the run has to roll back, or to stop."""
        return self.in_a_row >= self._config.max_bad_steps

    def may_save(self) -> bool:
        """False among bad steps: the checkpoint would replace one that the run can return to."""
        return self.in_a_row == 0

    def in_words(self, step: int) -> str:
        """The number of bad steps in a row, for a message."""
        return f"{self.in_a_row} bad steps in a row, up to step {step}"

    def check_may_go_back(self, step: int) -> None:
        """Raises UserError if the run has returned too often; `step`: the last step."""
        if self.rollbacks >= self._config.max_rollbacks:
            raise UserError(
                f"{self.in_words(step)}, after {self.rollbacks} returns to a checkpoint without a "
                f"good one since: stopping; {self._last}; the skipped batches are in "
                f"{self._folder}; a lower LEARNING_RATE or a higher SPIKE_SIGMAS may help"
            )

    def went_back(self) -> None:
        """Counts a return to a checkpoint."""
        self.in_a_row, self.rollbacks = 0, self.rollbacks + 1

    def saved(self) -> None:
        """Counts a checkpoint; after a good step it is a good one."""
        if self.in_a_row == 0:
            self.rollbacks = 0


def verdict(name: str, value: float, limit: float) -> str:
    """A loss or gradient norm in words: "loss 9.3 is above its limit 4.1"."""
    text = f"{name} {value:.6g}"
    if not math.isfinite(value):
        return f"{text} is not finite"
    return f"{text} is above its limit {limit:.6g}" if value > limit else text
