"""A progress bar on a terminal, plain lines anywhere else."""

import sys

from tqdm import tqdm


class Progress:
    """Shows steps done, the latest numbers, and the time left."""

    def __init__(self, total: int, start: int) -> None:
        self._total = total
        self._step = start
        on_terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=start, unit="step") if on_terminal else None

    def advance(self) -> None:
        """One step more."""
        self._step += 1
        if self._bar is not None:
            self._bar.update()

    def show(self, loss: float, tokens_per_second: float, seconds_a_step: float) -> None:
        """The latest training numbers."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.3f}, {tokens_per_second:,.0f} tokens/s")
            return
        left = (self._total - self._step) * seconds_a_step
        self.say(
            f"step {self._step}/{self._total}  loss {loss:.3f}  "
            f"{tokens_per_second:,.0f} tokens/s  {tqdm.format_interval(left)} left"
        )

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar.write(text)
        else:
            print(text, flush=True)

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()
