"""Locks a run's folder, so that one job at a time trains there."""

from switch_jax.run_folder import RunFolder
from switch_jax.storage import FileLock, HeldError, Lease, explain_write_errors, hold
from switch_jax.utils.errors import UserError


def lock_run(folder: RunFolder, wait: bool = True) -> FileLock | Lease:
    """Locks a run's folder until the returned lock is closed; UserError if that is impossible."""
    what = f"MODEL_DIR {str(folder)!r}"
    try:
        with explain_write_errors(what, done="locked"):
            return hold(folder.lock, wait)
    except HeldError as holder:
        raise UserError(
            f"{what} is in use by {holder}: stop that job, or give another MODEL_DIR"
        ) from None
