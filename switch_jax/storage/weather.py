"""Requests to buckets that failed and were repeated: how long, how many, and a line about it."""

import random
import threading
import time
from collections.abc import Callable, Iterator

from switch_jax.terminal import say

PATIENCE = 600.0  # seconds for which a request is repeated
_FIRST_PATIENCE = 20.0  # where no request of the process has succeeded yet
_PATIENCE_AFTERWARDS = 1.0  # after one that was in vain, until a request succeeds
_LONGEST_WAIT = 32.0
_SILENCE = 10.0  # seconds of failures before a line says so


class Weather:
    """Counts repeated requests of this process, of all threads.

    Attributes:
      repeated: requests that were repeated so far; TensorStore counts its own.
      patience: seconds for which a request is repeated.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.repeated, self.patience = 0, _FIRST_PATIENCE
        self._clock, self._lock = clock, threading.Lock()
        self._since: float | None = None  # when the failures began
        self._said = False

    def waiting_times(self) -> Iterator[float]:
        """Seconds to wait before each repetition, growing from 1 to 32, until the patience ends.

        Where it was in vain, the next requests are hardly repeated, until one succeeds.
        """
        end, wait = self._clock() + self.patience, 1.0
        while self._clock() < end:
            yield wait * random.uniform(0.5, 1.0)  # so that many hosts do not come back at once
            wait = min(2 * wait, _LONGEST_WAIT)
        self.patience = min(self.patience, _PATIENCE_AFTERWARDS)

    def failed(self, reason: str) -> None:
        """Counts a failure; one line says so where failures go on for ten seconds."""
        with self._lock:
            self.repeated += 1
            now = self._clock()
            self._since = now if self._since is None else self._since
            is_long = not self._said and now - self._since >= _SILENCE
            self._said |= is_long
        if is_long:
            say(f"{reason}; trying again, for {self.patience:.0f} s at most")

    def answered(self) -> None:
        """A request has succeeded; one line says so after a line about failures."""
        self.patience = PATIENCE
        if self._since is None:
            return
        with self._lock:
            since, said, self._since, self._said = self._since, self._said, None, False
        if said and since is not None:
            say(f"the storage answers again, after {self._clock() - since:.0f} s")


def repeated_requests() -> int:
    """Requests of this process to buckets that failed and were repeated so far, by all clients."""
    import tensorstore as ts

    names = (f"/tensorstore/kvstore/{kind}/retries" for kind in ("gcs", "s3"))
    counts = [count for name in names for count in ts.experimental_collect_matching_metrics(name)]
    return WEATHER.repeated + sum(int(count["values"][0]["value"]) for count in counts)


WEATHER = Weather()
