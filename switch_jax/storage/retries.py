"""How failed requests to buckets are repeated: for how long, how many, and what is printed."""

import random
import time
from collections.abc import Callable, Iterator

from switch_jax.utils.terminal import say

PATIENCE = 600.0  # seconds for which a request is repeated
_FIRST_PATIENCE = 20.0  # where no request of the process has succeeded yet
_LONGEST_WAIT = 32.0
SILENCE = 10.0  # seconds without an answer before a line says so
# TensorStore repeats a read after 0.1 s, 0.2 s, ... up to half a minute; two minutes in all.
TENSORSTORE_RETRIES = {"max_retries": 12, "initial_delay": "100ms", "max_delay": "32s"}


class Retries:
    """Counts and times all requests of this process but TensorStore's; one thread makes them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.repeated = 0  # requests so far
        self.patience = _FIRST_PATIENCE  # seconds for which a request is repeated
        self._clock = clock
        self._since: float | None = None  # when the silence began that a line was about

    def waiting_times(self) -> Iterator[float]:
        """Yields the seconds to wait before each repetition, from 1 to 32, until patience ends.

        After a request that never succeeded the next are not repeated, until one succeeds.
        """
        end, wait = self._clock() + self.patience, 1.0
        while self._clock() < end:
            yield wait * random.uniform(0.5, 1.0)  # so that many hosts do not come back at once
            wait = min(2 * wait, _LONGEST_WAIT)
        self.patience = 0.0

    def late(self, reason: str) -> None:
        """Prints that a request had no success for `SILENCE` seconds, if it is the first one."""
        if self._since is None:
            self._since = self._clock() - SILENCE
            say(f"{reason}; what fails is tried again, for {self.patience:.0f} s at most")

    def answered(self) -> None:
        """Notes that a request has succeeded; prints it after a line of `late`."""
        self.patience = PATIENCE
        if self._since is not None:
            say(f"the storage has answered, after {self._clock() - self._since:.0f} s")
            self._since = None


def repeated_requests() -> int:
    """Counts the requests of all clients of this process that failed and were repeated so far."""
    import tensorstore as ts

    names = (f"/tensorstore/kvstore/{kind}/retries" for kind in ("gcs", "s3"))
    counts = [count for name in names for count in ts.experimental_collect_matching_metrics(name)]
    return RETRIES.repeated + sum(int(count["values"][0]["value"]) for count in counts)


RETRIES = Retries()
