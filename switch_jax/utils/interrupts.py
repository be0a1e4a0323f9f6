"""Handles Ctrl-C while there is no checkpoint to save."""

import contextlib
import os
import signal
from types import FrameType
from typing import NoReturn

from switch_jax.exit_codes import INTERRUPTED

_CLOSING_SECONDS = 5


class InterruptHandler:
    """A handler of SIGINT: the first one raises KeyboardInterrupt, the second exits with code 130.

    After five seconds the process exits in the same way: closing files in a bucket that does not
    answer would take minutes.
    """

    def __init__(self) -> None:
        self.received = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if self.received:
            _exit()
        self.received = True
        signal.signal(signal.SIGALRM, lambda *_: _exit())
        signal.alarm(_CLOSING_SECONDS)
        raise KeyboardInterrupt


def _exit() -> NoReturn:
    with contextlib.suppress(OSError):  # nobody may read standard error any more
        os.write(2, b"stopped\n")
    os._exit(INTERRUPTED)


def raise_if_interrupted() -> None:
    """Raises KeyboardInterrupt again if an earlier one was swallowed.

    Python prints and drops an exception that is raised in a callback of the garbage collector, and
    JAX has such callbacks; and some modules catch every exception while they are imported.
    """
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, InterruptHandler) and handler.received:
        raise KeyboardInterrupt
