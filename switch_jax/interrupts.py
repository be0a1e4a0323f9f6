"""Ctrl-C from the moment that a command begins, while there is nothing to save."""

import contextlib
import os
import signal
from types import FrameType


class Interrupts:
    """A handler of SIGINT that remembers that it came, see `raise_lost`.

    The first one raises KeyboardInterrupt, a second one ends the process at once, with code 130.
    """

    def __init__(self) -> None:
        self.came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Python calls it in the main thread."""
        if self.came:
            with contextlib.suppress(OSError):  # who reads it may be gone
                os.write(2, b"stopped\n")
            os._exit(130)
        self.came = True
        raise KeyboardInterrupt


def raise_lost() -> None:
    """Raises KeyboardInterrupt where an earlier one has come to nothing.

    Python prints and forgets what is raised in a function that it calls in a garbage collection, as
    it calls one of JAX's; and some modules catch everything while they are imported.
    """
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, Interrupts) and handler.came:
        raise KeyboardInterrupt
