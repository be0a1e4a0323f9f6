"""Standard output and standard error that can fail: a full disk, closed, or no longer read.

Python would answer each failure with a stack trace. A command needs one rule for all that it
prints: a command whose output is its result ends, and a training run continues, since its records
are in files.
"""

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO


class Stream(io.FileIO):
    """Writes to a file descriptor until the first failure, and drops everything after it.

    Attributes:
      failure: the first failure, or None.
      on_failure: called with the failure; if None, the failure is raised.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.failure: OSError | None = None
        self.on_failure: Callable[[OSError], None] | None = None

    def write(self, data: Any) -> int:
        """Writes or drops the data."""
        if self.failure is None:
            try:
                count = super().write(data)
                if count is None:  # the descriptor is non-blocking and cannot take data now
                    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                return count
            except OSError as error:
                self.failure = error
                if self.on_failure is None:
                    raise
                self.on_failure(error)
        return memoryview(data).nbytes


def replace_standard_streams() -> Stream:
    """Replaces sys.stdout and sys.stderr by such streams, and closed ones by the null device.

    Returns:
      The stream of standard output. Failures of standard error are ignored: there is nowhere else
      to report them.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed: a file opened later must not get its number
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            setattr(sys, name, open(descriptor, "w" if descriptor else "r", closefd=False))
    output, errors = Stream(sys.stdout.fileno()), Stream(sys.stderr.fileno())
    errors.on_failure = lambda error: None
    sys.stdout, sys.stderr = _as_text(output, sys.stdout), _as_text(errors, sys.stderr)
    return output


def _as_text(raw: Stream, like: TextIO) -> TextIO:
    """A text stream with the encoding and buffering of Python's own stream."""
    assert isinstance(like, io.TextIOWrapper)
    unbuffered = like.write_through
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),  # type: ignore[type-var]
        encoding=like.encoding,
        errors=like.errors,
        line_buffering=like.line_buffering,
        write_through=unbuffered,
    )
