"""Locks a file, so that one job at a time uses the folder that it is in."""

import contextlib
import fcntl
import os
import re
import socket
import time
from typing import IO

from etils import epath

from switch_jax.utils.errors import UserError

# How often a start tries to lock the file, and the seconds between: `stale_locker` has the
# lock for a moment.
_TRIES, _PAUSE = 10, 0.05


class HeldError(UserError):
    """Another job has the folder; the message names it."""


def process_name() -> str:
    """Names this process for other jobs."""
    return f"process {os.getpid()} on {socket.gethostname()}"


class FileLock:
    """A file that this process has locked; the system releases it however the process ends."""

    def __init__(self, file: epath.Path) -> None:
        """Takes the lock; raises as `lease.hold`."""
        self._file = open(file, "a+")  # noqa: SIM115  it stays open
        try:
            _lock(self._file)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise HeldError(holder) from None
        self._file.truncate(0)
        self._file.write(process_name() + "\n")
        self._file.flush()
        # A forked child has the open file, too: the lock would last for as long as the child.
        os.register_at_fork(after_in_child=self._file.close)

    def close(self) -> None:
        """Releases the lock."""
        self._file.close()


def _lock(file: IO[str]) -> None:
    """Locks a file; raises BlockingIOError if another process keeps it locked."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(_PAUSE)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def stale_locker(file: epath.Path, content: bytes) -> str | None:
    """Does for a file on a disk what `lease.stale_holder` does."""
    holder = content.decode(errors="replace").strip()
    if not re.fullmatch(rf"process \d+ on {re.escape(socket.gethostname())}", holder):
        return None
    try:
        with open(file, "rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # it is locked, or this file system has no locks
        return None
    return holder
