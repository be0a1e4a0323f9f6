"""Where the wall time of a run goes, and a warning when much of it is spent waiting for data."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

from switch_jax.run_folder import SPENT_KINDS, SpentKind


class Goodput:
    """Adds up seconds by kind; whatever lies outside all `spend` blocks is "idle".

    For one thread: a block counts for the kind of the innermost block that is open.
    """

    def __init__(
        self,
        earlier: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Starts counting.

        Args:
          earlier: seconds by kind that earlier lives of the run had spent.
          clock: gives the time in seconds.
        """
        self._seconds: dict[str, float] = {k: (earlier or {}).get(k, 0.0) for k in SPENT_KINDS}
        self._open: list[SpentKind] = ["idle"]
        self._clock = clock
        self._since = clock()

    @contextlib.contextmanager
    def spend(self, kind: SpentKind) -> Iterator[None]:
        """Counts the time of the block for `kind`, but for the blocks inside it."""
        self._count()
        self._open.append(kind)
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    def seconds(self) -> dict[str, float]:
        """Seconds so far of every kind, those of an open block included."""
        self._count()
        return dict(self._seconds)

    def fraction(self) -> float:
        """The steps' share of all seconds so far, between 0 and 1; 0 before any time has passed."""
        seconds = self.seconds()
        total = sum(seconds.values())
        return seconds["step"] / total if total else 0.0

    def _count(self) -> None:
        now = self._clock()
        self._seconds[self._open[-1]] += now - self._since
        self._since = now


class InputBound:
    """Warns that the devices wait for data: once in ten minutes at most."""

    _LIMIT = 0.1  # of the time
    _QUIET = 600.0  # seconds

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._quiet_until = float("-inf")

    def warning(self, data: float, total: float) -> str | None:
        """One line for the user, or None.

        Args:
          data: seconds of the last log window that the loop waited for a batch.
          total: seconds of that window.
        """
        now = self._clock()
        if data <= self._LIMIT * total or now < self._quiet_until:
            return None
        self._quiet_until = now + self._QUIET
        return (
            f"warning: {data / total:.0%} of the time went into waiting for data; use more host "
            "cores, cached tasks (USE_CACHED_TASKS), or larger files"
        )
