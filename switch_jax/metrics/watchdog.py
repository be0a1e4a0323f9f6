"""Shows where a run hangs: the stacks of all threads when no step has begun for long."""

import contextlib
import faulthandler
import os
import sys
import tempfile
import threading
import time
import traceback

from etils import epath

from switch_jax.errors import UserError
from switch_jax.storage import appended_file


class Watchdog:
    """A thread that writes all stacks to stderr and a file when `alive` is not called for long.

    It writes once, and again after a call of `alive` and another silence.
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
        reported = None
        while not self._closed.wait(self._seconds / 10):
            last = self._last
            if last is None or last is reported or time.monotonic() - last[1] < self._seconds:
                continue
            reported = last
            self._report(f"no step for {self._seconds:.10g} s (last: {last[0]})")

    def _report(self, text: str) -> None:
        report = f"{text}; stacks of all threads follow\n{_main_stack()}".encode()
        with contextlib.suppress(OSError), tempfile.TemporaryFile() as file:
            faulthandler.dump_traceback(file)
            file.seek(0)
            report += file.read()
        # The descriptor itself: a thread that hangs may hold the lock of Python's sys.stderr. And
        # stderr first: the file may lie on the file system that hangs.
        with contextlib.suppress(OSError):
            os.write(2, report)
        with contextlib.suppress(OSError, UserError):
            self._file.append(report)


def _main_stack() -> str:
    """The main thread's stack: faulthandler writes it last, and only the first 100 threads.

    The lines of the source are not looked up: they may lie on the file system that hangs.
    """
    calls = traceback.walk_stack(sys._current_frames()[threading.main_thread().ident or 0])
    lines = [f'  File "{f.f_code.co_filename}", line {n} in {f.f_code.co_name}\n' for f, n in calls]
    return "".join(["Main thread (most recent call first):\n", *lines, "\n"])
