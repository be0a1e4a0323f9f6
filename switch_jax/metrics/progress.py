"""A progress bar on a terminal, plain lines anywhere else."""

import sys

from tqdm import tqdm


class Progress:
    """Shows steps done, the latest numbers, and the time left."""

    def __init__(self, total: int, start: int, active: bool = True) -> None:
        """`active`: False on all processes but one, which show nothing."""
        self._total = total
        self._step = start
        self._active = active
        on_terminal = active and sys.stderr.isatty()
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
        elif self._active:
            print(text, flush=True)

    def back_to(self, step: int) -> None:
        """The run has gone back to an earlier step."""
        if self._bar is not None:
            self._bar.update(step - self._step)
        self._step = step

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()
