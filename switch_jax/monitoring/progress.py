"""Shows progress by a bar on a terminal, and by plain lines elsewhere."""

import sys

from tqdm import tqdm

from switch_jax.utils.terminal import say


class Progress:
    """Shows steps done, the latest numbers, and the time left."""

    def __init__(self, total: int, start: int, active: bool = True) -> None:
        """Shows `start` of `total` steps; processes that are not `active` show nothing."""
        self._total = total
        self._step = start
        self._active = active
        on_terminal = active and sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=start, unit="step") if on_terminal else None

    def advance(self) -> None:
        self._step += 1
        if self._bar is not None:
            self._bar.update()

    def show(
        self, step: int, loss: float, tokens_per_second: float, seconds_per_step: float
    ) -> None:
        """Shows the numbers of a step that the devices have done, perhaps some steps ago."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.3f}, {tokens_per_second:,.0f} tokens/s")
            return
        left = (self._total - step) * seconds_per_step
        self.say(
            f"step {step}/{self._total}  loss {loss:.3f}  "
            f"{tokens_per_second:,.0f} tokens/s  {tqdm.format_interval(left)} left"
        )

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        if self._active:
            say(text, sys.stdout)

    def back_to(self, step: int) -> None:
        if self._bar is not None:
            self._bar.update(step - self._step)
        self._step = step

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
