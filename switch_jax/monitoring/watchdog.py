"""Shows where a run hangs: the stacks of all threads when no step has begun for long."""

import faulthandler


class Watchdog:
    """Writes all stacks to standard error, once, when `alive` is not called for long.

    They come from outside of Python, also where a thread never gives Python's lock back. Nothing
    is written before the first call of `alive`. A process has one watchdog.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def alive(self) -> None:
        """Notes that the run goes on. It takes a tenth of a millisecond."""
        # The descriptor itself: sys.stderr may be an object without one, as in a notebook.
        faulthandler.dump_traceback_later(self._seconds, file=2)

    def close(self) -> None:
        faulthandler.cancel_dump_traceback_later()
