"""The lock of a run's folder: one job at a time trains there."""

from switch_jax.errors import UserError, storage_error
from switch_jax.run_folder import RunFolder
from switch_jax.storage import HeldError, hold


class RunLock:
    """Holds a run's folder for this process."""

    def __init__(self, folder: RunFolder, wait: bool = True) -> None:
        """Takes the lock; `wait`: see `storage.hold`.

        Raises:
          UserError: another process has it, or the folder cannot be written.
        """
        try:
            self._lock = hold(folder.lock, wait)
        except HeldError as error:
            raise UserError(
                f"MODEL_DIR {str(folder)!r} is in use by {error.holder}: stop that job, or give "
                "another MODEL_DIR"
            ) from None
        except OSError as error:
            reason = error.strerror or error
            raise storage_error(
                f"MODEL_DIR {str(folder)!r} cannot be locked: {reason}", error
            ) from error

    def close(self) -> None:
        """Releases the lock."""
        self._lock.close()
