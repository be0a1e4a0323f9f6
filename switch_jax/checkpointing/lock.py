"""The lock of a run's folder: one job at a time trains there."""

import fcntl
import os
import socket
import weakref
from pathlib import Path

from switch_jax.errors import UserError, storage_error
from switch_jax.run_folder import RunFolder

_locks: "weakref.WeakSet[RunLock]" = weakref.WeakSet()


def _close_all() -> None:
    for lock in list(_locks):
        lock.close()


# A forked child has the open file too, and with it the lock, which would outlive this process.
os.register_at_fork(after_in_child=_close_all)


class RunLock:
    """Holds a run's folder for this process; the system releases it however the process ends."""

    def __init__(self, folder: RunFolder[Path]) -> None:
        """Takes the lock.

        Raises:
          UserError: another process has it, or the folder cannot be written.
        """
        try:
            self._file = folder.lock.open("a+")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            self._file.flush()
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise UserError(
                f"MODEL_DIR {str(folder)!r} is in use by {holder}: stop that job, or give "
                "another MODEL_DIR"
            ) from None
        except OSError as error:
            raise storage_error(
                f"MODEL_DIR {str(folder)!r} cannot be locked: {error.strerror}", error
            ) from error
        _locks.add(self)

    def close(self) -> None:
        """Releases the lock."""
        self._file.close()
