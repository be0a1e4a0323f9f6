"""Handling of Ctrl-C while there is no checkpoint to save."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from switch_jax.exit_codes import INTERRUPTED


class InterruptHandler:
    """A handler of SIGINT: the first raises KeyboardInterrupt, the second exits with code 130.

    Attributes:
      received: whether there has been one; see `raise_if_interrupted`.
    """

    def __init__(self) -> None:
        self.received = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Called by Python in the main thread."""
        if self.received:
            with contextlib.suppress(OSError):  # nobody may read standard error any more
                os.write(2, b"stopped\n")
            os._exit(INTERRUPTED)
        self.received = True
        raise KeyboardInterrupt


def raise_if_interrupted() -> None:
    """Raises KeyboardInterrupt again if an earlier one was swallowed.

    Python prints and drops an exception that is raised in a callback of the garbage collector, and
    JAX has such callbacks; and some modules catch every exception while they are imported.
    """
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, InterruptHandler) and handler.received:
        raise KeyboardInterrupt


@contextlib.contextmanager
def ended_at_once(clean_up: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C ends the process with code 130, also within code of a library that takes minutes.

    Python's own handler has to wait until such code returns. A compiler is such code. It has to let
    other threads of Python run meanwhile, as JAX's does. Outside of the main thread, which gets
    signals, nothing changes.

    Args:
      clean_up: called before the end, in another thread; nothing else is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    read, write = os.pipe()
    os.set_blocking(write, False)

    def watch() -> None:
        while received := os.read(read, 1):
            if received[0] == signal.SIGINT:
                try:
                    clean_up()
                    os.write(2, b"\nstopped\n")
                finally:
                    os._exit(INTERRUPTED)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(write)
        watcher.join()
        os.close(read)
