"""One job for each folder of a disk: a lock of a file."""

import fcntl
import os
import re
import socket
import weakref

from etils import epath

from switch_jax.errors import UserError

_locks: "weakref.WeakSet[FileLock]" = weakref.WeakSet()


def _close_all() -> None:
    for lock in list(_locks):
        lock.close()


# A forked child has the open file too, and with it the lock, which would outlive this process.
os.register_at_fork(after_in_child=_close_all)


class HeldError(UserError):
    """Another job has the folder; `holder` says which."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


def process_name() -> str:
    """This process, as others see it."""
    return f"process {os.getpid()} on {socket.gethostname()}"


class FileLock:
    """Holds a file for this process; the system releases it however the process ends."""

    def __init__(self, file: epath.Path) -> None:
        """Takes the lock.

        Raises:
          HeldError: another process has it.
          OSError: the file cannot be written.
        """
        self._file = open(file, "a+")  # noqa: SIM115  it stays open
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise HeldError(holder) from None
        self._file.truncate(0)
        self._file.write(process_name() + "\n")
        self._file.flush()
        _locks.add(self)

    def close(self) -> None:
        """Releases the lock."""
        self._file.close()


def locker_that_is_gone(file: epath.Path, content: bytes) -> str | None:
    """As `lease.holder_gone`, of a file on a disk."""
    holder = content.decode(errors="replace").strip()
    if not re.fullmatch(rf"process \d+ on {re.escape(socket.gethostname())}", holder):
        return None
    try:
        with open(file, "rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # it is locked, or this file system has no locks
        return None
    return holder
