"""How failed requests to buckets are repeated: for how long, how many, and what is printed."""

import math
import random
import time
from collections.abc import Callable, Iterator

from switch_jax.utils.terminal import say

PATIENCE = 600.0  # seconds in which failed requests are repeated
_FIRST_PATIENCE = 20.0  # where none has been answered yet, or since that time was over
_LONGEST_WAIT = 32.0
_LAST_TRY = 5.0  # seconds of the patience that the last repetition has
_HOPELESS = 10.0  # seconds after the patience has ended in which no request is begun
SILENCE = 10.0  # seconds without an answer before a line says so
# TensorStore repeats a read after 0.1 s, 0.2 s, ... up to half a minute; 12 times.
TENSORSTORE_RETRIES = {"max_retries": 12, "initial_delay": "100ms", "max_delay": "32s"}


class Retries:
    """Counts and times all requests of this process but TensorStore's; one thread makes them.

    They share one deadline: `patience` seconds after the first one began that has failed since the
    last answer. So it does not matter how many requests a command makes.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.repeated = 0  # requests so far
        self.patience = _FIRST_PATIENCE
        self._clock = clock
        self._answered = -math.inf  # when the last request was
        self._failing_since = math.inf  # when the first began that has failed after it
        self._reason = ""  # why the last one failed
        self._gave_up: float | None = None  # when the patience ended
        self._line_since: float | None = None  # when the silence began that a line was about

    @property
    def reached(self) -> bool:
        """Says whether the storage has answered, and has not been given up since."""
        return self.patience == PATIENCE

    def seconds_left(self) -> float:
        """Returns how long failed requests are repeated from now on."""
        now = self._clock()
        return min(now, self._failing_since) + self.patience - now

    def just_gave_up(self) -> str | None:
        """Returns why requests failed, where the patience has just ended; None: begin a request."""
        if self._gave_up is None:
            return None
        if self._clock() < self._gave_up + _HOPELESS:
            return self._reason
        self._gave_up, self._failing_since = None, math.inf
        return None

    def failed(self, reason: str, seconds: float) -> None:
        """Notes that a request failed, which was without an answer for so many seconds."""
        now, self._reason = self._clock(), reason
        since = max(now - seconds, self._answered)
        self._failing_since = min(since, self._failing_since)

    def waiting_times(self) -> Iterator[float]:
        """Yields the seconds to wait before each repetition, from 1 to 32, until patience ends.

        A request that fails while others are answered has `PATIENCE` of its own.
        """
        end, wait = self._clock() + PATIENCE, 1.0
        while (left := min(self.seconds_left(), end - self._clock())) > _LAST_TRY:
            # Not all at the same time, so that many hosts do not come back at once.
            yield min(wait * random.uniform(0.5, 1.0), left - _LAST_TRY)
            wait = min(2 * wait, _LONGEST_WAIT)
        if self._gave_up is None and self.seconds_left() <= _LAST_TRY:
            self._gave_up, self.patience = self._clock(), _FIRST_PATIENCE

    def late(self, reason: str) -> None:
        """Prints that a request had no success for `SILENCE` seconds, if it is the first one."""
        if self._line_since is None:
            self._line_since = self._clock() - SILENCE
            say(f"{reason}; what fails is tried again, for {self.patience:.0f} s at most")

    def answered(self) -> None:
        """Notes that a request was answered; prints it after a line of `late`."""
        self.patience, self._answered = PATIENCE, self._clock()
        self._gave_up, self._failing_since = None, math.inf
        if self._line_since is not None:
            say(f"the storage has answered, after {self._clock() - self._line_since:.0f} s")
            self._line_since = None


def repeated_requests() -> int:
    """Counts the requests of all clients of this process that failed and were repeated so far."""
    import tensorstore as ts

    names = (f"/tensorstore/kvstore/{kind}/retries" for kind in ("gcs", "s3"))
    counts = [count for name in names for count in ts.experimental_collect_matching_metrics(name)]
    return RETRIES.repeated + sum(int(count["values"][0]["value"]) for count in counts)


RETRIES = Retries()
