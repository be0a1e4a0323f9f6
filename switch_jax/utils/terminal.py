"""Shows on standard error what takes long, and prints lines beside progress bars."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

from tqdm import tqdm


def say(line: str, file: TextIO | None = None) -> None:
    """Prints a line above a progress bar, if there is one; `file` is standard error if None."""
    tqdm.write(line, file=file or sys.stderr)
    (file or sys.stderr).flush()


@contextlib.contextmanager
def seconds_shown(text: str, line_period: float | None = None) -> Iterator[None]:
    """Shows on a terminal what takes long, and for how long, in a line that is removed in the end.

    Without a terminal a line is printed every `line_period` seconds, or never if that is None.
    """
    on_terminal = sys.stderr.isatty()
    period = 1.0 if on_terminal else line_period
    if period is None:
        yield
        return
    start, done = time.monotonic(), threading.Event()
    before, after = ("\r", "") if on_terminal else ("", "\n")

    def report() -> None:
        while not done.wait(period):
            seconds = time.monotonic() - start
            print(f"{before}{text}: {seconds:.0f} s", end=after, file=sys.stderr, flush=True)

    if not on_terminal:
        print(text, file=sys.stderr, flush=True)
    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if on_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)  # to the end of the line
