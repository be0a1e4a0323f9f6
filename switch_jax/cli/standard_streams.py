"""Standard output and standard error of a command: on a full disk, closed, or no longer read.

Python would answer each with a stack trace. What a command needs is one answer for all its prints:
one whose output is its result ends, and a training run goes on, since its records are in files.
"""

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO


class Stream(io.FileIO):
    """What writes to a file descriptor, and remembers what first went wrong.

    Attributes:
      failure: the first failure; None: all was written. What comes after it is dropped.
      on_failure: what to do about it; None: it is raised.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.failure: OSError | None = None
        self.on_failure: Callable[[OSError], None] | None = None

    def write(self, data: Any) -> int:
        """Writes, or drops, what is given."""
        if self.failure is None:
            try:
                written = super().write(data)
                if written is None:  # it does not block, and takes nothing now
                    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                return written
            except OSError as error:
                self.failure = error
                if self.on_failure is None:
                    raise
                self.on_failure(error)
        return memoryview(data).nbytes


def open_all() -> Stream:
    """Puts streams of this kind, or where they are closed the null device, in place of Python's.

    Returns:
      That of standard output. A failure of standard error is passed over: there is no other place
      to say it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed: no file that is opened later may get its number
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))
    output, errors = Stream(sys.stdout.fileno()), Stream(sys.stderr.fileno())
    errors.on_failure = lambda error: None
    sys.stdout, sys.stderr = _text(output, sys.stdout), _text(errors, sys.stderr)
    return output


def _text(raw: Stream, like: TextIO) -> TextIO:
    """Text that is encoded and buffered as that of Python's own stream."""
    assert isinstance(like, io.TextIOWrapper)
    unbuffered = like.write_through
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),  # type: ignore[type-var]
        encoding=like.encoding,
        errors=like.errors,
        line_buffering=like.line_buffering,
        write_through=unbuffered,
    )
