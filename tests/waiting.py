"""Waiting for what another thread or process does: as long as it takes, on any machine."""

import time
from collections.abc import Callable

# Seconds after which a test takes what it waits for to have hung.
HANGS = 600.0


def wait_until(condition: Callable[[], object]) -> None:
    """Until the condition holds; AssertionError where it seems to hang."""
    deadline = time.monotonic() + HANGS
    while not condition():
        assert time.monotonic() < deadline, f"nothing has come for {HANGS} s"
        time.sleep(0.01)
