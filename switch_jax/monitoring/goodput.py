"""Measures what a run spends its wall time on, and warns of long waits for data."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

from switch_jax.run_folder import MAX_WAITING, TIME_CATEGORIES, TimeCategory


class Goodput:
    """Adds up seconds by the category of the innermost `spend` block, or "idle" outside of one."""

    def __init__(
        self,
        earlier: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Starts counting on top of `earlier`, seconds by category of earlier starts of the run."""
        earlier = earlier or {}
        self._seconds: dict[str, float] = {c: earlier.get(c, 0.0) for c in TIME_CATEGORIES}
        self._open: list[TimeCategory] = ["idle"]
        self._clock = clock
        self._since = clock()

    @contextlib.contextmanager
    def spend(self, category: TimeCategory) -> Iterator[None]:
        """Counts the time of the block for a category, except that of the blocks inside it."""
        self._count()
        self._open.append(category)
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    def seconds(self) -> dict[str, float]:
        """Returns the seconds so far by category, including those of an open block."""
        self._count()
        return dict(self._seconds)

    def fraction(self) -> float:
        """Returns the share of steps in all seconds so far, from 0 to 1."""
        seconds = self.seconds()
        total = sum(seconds.values())
        return seconds["step"] / total if total else 0.0

    def _count(self) -> None:
        now = self._clock()
        self._seconds[self._open[-1]] += now - self._since
        self._since = now


class InputBound:
    """Warns that the devices wait for data, after each ten minutes of training in which they do."""

    _INTERVAL = 600.0  # seconds

    def __init__(self) -> None:
        self._data = self._total = 0.0  # of the present ten minutes

    def warning(self, data: float, total: float) -> str | None:
        """Returns a line, or None; of `total` seconds since the last call, `data` were waits."""
        self._data += data
        self._total += total
        if self._total < self._INTERVAL:
            return None
        waiting = self._data / self._total
        self._data = self._total = 0.0
        if waiting <= MAX_WAITING:
            return None
        return (
            f"warning: {waiting:.0%} of the time went into waiting for data "
            "(docs/troubleshooting.md)"
        )
