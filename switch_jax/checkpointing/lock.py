"""The lock of a run's folder: one job at a time trains there."""

from switch_jax.errors import UserError, storage_error
from switch_jax.run_folder import RunFolder
from switch_jax.storage import FileLock, HeldError, Lease, hold


def lock_run(folder: RunFolder, wait: bool = True) -> FileLock | Lease:
    """Holds a run's folder for this process, until what it returns is closed.

    Args:
      folder: the run's.
      wait: see `storage.hold`.

    Raises:
      UserError: another process has it, or the folder cannot be written.
    """
    try:
        return hold(folder.lock, wait)
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
