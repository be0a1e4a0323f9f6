"""Shows where a run hangs: it prints the stacks of all threads if no step begins for long."""

import faulthandler


class Watchdog:
    """Writes all stacks to standard error, once, if `alive` is not called for `seconds`.

    A thread outside of Python writes them, even if another one never releases Python's lock.
    Nothing is written before the first call of `alive`. A process has one watchdog.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def alive(self) -> None:
        """Notes that the run goes on, in a tenth of a millisecond."""
        # The descriptor itself: sys.stderr may be an object without one, as in a notebook.
        faulthandler.dump_traceback_later(self._seconds, file=2)

    def close(self) -> None:
        faulthandler.cancel_dump_traceback_later()
