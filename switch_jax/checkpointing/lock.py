"""The lock of a run's folder: one job at a time trains there."""

from switch_jax.errors import UserError
from switch_jax.run_folder import RunFolder
from switch_jax.storage import FileLock, HeldError, Lease, explain_write_errors, hold


def lock_run(folder: RunFolder, wait: bool = True) -> FileLock | Lease:
    """Holds a run's folder for this process, until what it returns is closed; `wait`: see `hold`.

    Raises:
      UserError: another process has it, or the folder cannot be written.
    """
    what = f"MODEL_DIR {str(folder)!r}"
    try:
        with explain_write_errors(what, done="locked"):
            return hold(folder.lock, wait)
    except HeldError as error:
        raise UserError(
            f"{what} is in use by {error.holder}: stop that job, or give another MODEL_DIR"
        ) from None
