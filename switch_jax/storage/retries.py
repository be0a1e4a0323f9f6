"""Requests to buckets that failed and were repeated: how long, how many, and a line about it."""

import random
import time
from collections.abc import Callable, Iterator

from switch_jax.utils.terminal import say

PATIENCE = 600.0  # seconds for which a request is repeated
_FIRST_PATIENCE = 20.0  # where no request of the process has succeeded yet
_LONGEST_WAIT = 32.0
SILENCE = 10.0  # seconds without an answer before a line says so


class Retries:
    """Of all requests of this process but TensorStore's, which are made in one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.repeated = 0  # requests so far
        self.patience = _FIRST_PATIENCE  # seconds for which a request is repeated
        self._clock = clock
        self._since: float | None = None  # when the silence began that a line was about

    def waiting_times(self) -> Iterator[float]:
        """Seconds to wait before each repetition, growing from 1 to 32, until the patience ends.

        Where it was in vain, the next requests are not repeated, until one succeeds.
        """
        end, wait = self._clock() + self.patience, 1.0
        while self._clock() < end:
            yield wait * random.uniform(0.5, 1.0)  # so that many hosts do not come back at once
            wait = min(2 * wait, _LONGEST_WAIT)
        self.patience = 0.0

    def late(self, reason: str) -> None:
        """A request had no success for `SILENCE` seconds: the first one is said."""
        if self._since is None:
            self._since = self._clock() - SILENCE
            say(f"{reason}; what fails is tried again, for {self.patience:.0f} s at most")

    def answered(self) -> None:
        """A request has succeeded; one line says so after a line about a silence."""
        self.patience = PATIENCE
        if self._since is not None:
            say(f"the storage has answered, after {self._clock() - self._since:.0f} s")
            self._since = None


def repeated_requests() -> int:
    """Requests of this process to buckets that failed and were repeated so far, by all clients."""
    import tensorstore as ts

    names = (f"/tensorstore/kvstore/{kind}/retries" for kind in ("gcs", "s3"))
    counts = [count for name in names for count in ts.experimental_collect_matching_metrics(name)]
    return RETRIES.repeated + sum(int(count["values"][0]["value"]) for count in counts)


RETRIES = Retries()
