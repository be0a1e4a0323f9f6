"""Whether something that is done again and again leaves files open, or threads."""

import os
import threading
from collections.abc import Callable


def left_open(action: Callable[[], object], times: int) -> tuple[int, int]:
    """How many more files are open, and Python threads run, after `times` calls than after one."""
    action()  # what is made once is made now
    before = _open_now()
    for _ in range(times):
        action()
    files, threads = _open_now()
    return files - before[0], threads - before[1]


def _open_now() -> tuple[int, int]:
    return len(os.listdir("/dev/fd")), threading.active_count()
