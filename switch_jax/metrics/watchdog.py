"""Shows where a run hangs: the stacks of all threads when no step has begun for long."""

import contextlib
import os
import sys
import threading
import time
import traceback

from etils import epath

from switch_jax.errors import UserError
from switch_jax.storage import appended_file


class Watchdog:
    """A thread that writes all stacks to stderr and a file when `alive` is not called for long.

    It writes after `seconds` without a call, and again each time that time has doubled.
    """

    def __init__(self, seconds: float, file: str | os.PathLike[str]) -> None:
        """Watches from the first call of `alive` on.

        Args:
          seconds: without a call of `alive`, after which it writes.
          file: appended to; made when there is something to write.
        """
        self._seconds = seconds
        self._file = appended_file(epath.Path(file))
        # One tuple, which is replaced: the threads need no lock.
        self._last: tuple[str, float] | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def alive(self, what: str) -> None:
        """Notes that the run goes on; `what` names the place, as in "step 123"."""
        self._last = (what, time.monotonic())

    def close(self) -> None:
        """Ends the thread; a second call does nothing."""
        self._closed.set()
        self._thread.join(timeout=1)  # it may hang on the same file system

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _watch(self) -> None:
        seen, limit = self._last, self._seconds
        wait = limit
        # At most one period: after a long silence the next one is noticed in time.
        while not self._closed.wait(min(wait, self._seconds)):
            if self._last is not seen:
                seen, limit = self._last, self._seconds
            if seen is None:
                continue
            what, since = seen
            if time.monotonic() - since >= limit:
                self._report(f"no step for {limit:.10g} s (last: {what})")
                limit *= 2
            wait = since + limit - time.monotonic()

    def _report(self, text: str) -> None:
        report = f"{text}; stacks of all threads follow\n{_stacks()}".encode()
        # The descriptor itself: a thread that hangs may hold the lock of Python's sys.stderr. And
        # stderr first: the file may lie on the file system that hangs.
        with contextlib.suppress(OSError):
            _write(2, report)
        with contextlib.suppress(OSError, UserError):
            self._file.append(report)


def _write(descriptor: int, report: bytes) -> None:
    while report:
        report = report[os.write(descriptor, report) :]


def _stacks() -> str:
    """The stack of each thread, its innermost call last; the main thread's comes first.

    The lines of the source are not looked up: they may lie on the file system that hangs. Python's
    faulthandler would stop after 100 threads, and the main thread is its last.
    """
    threads = {thread.ident: thread for thread in threading.enumerate()}
    main = threading.main_thread().ident
    lines = []
    for ident, frame in sorted(sys._current_frames().items(), key=lambda item: item[0] != main):
        name = threads[ident].name if ident in threads else "not started by Python"
        lines.append(f"Thread {ident:#x} ({name}), innermost call last:\n")
        calls = traceback.StackSummary.extract(
            reversed(list(traceback.walk_stack(frame))), lookup_lines=False
        )
        lines += [f'  File "{c.filename}", line {c.lineno}, in {c.name}\n' for c in calls]
    return "".join(lines)
