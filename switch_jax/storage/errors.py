"""Errors of disks and buckets: with an errno and the path, and as one line for the user."""

import contextlib
import errno
import functools
import os
from collections.abc import Iterator
from pathlib import PurePath

from switch_jax.utils.errors import UserError, storage_error


@contextlib.contextmanager
def errors_named(path: str) -> Iterator[None]:
    """Within, what a client raises becomes an OSError with an errno, and the path as its file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            error.filename = path
            raise
        code = errno.EIO
        if isinstance(error, FileNotFoundError):
            code = errno.ENOENT
        elif isinstance(error, PermissionError) or "Credential" in type(error).__name__:
            code = errno.EACCES  # also of Amazon's client where it finds none
        elif isinstance(error, TypeError | ValueError):
            code = errno.EPROTO
        reason = str(error).strip().split("\n")[0]
        raise OSError(code, f"{os.strerror(code)} ({reason})", path) from error


@contextlib.contextmanager
def explain_write_errors(what: PurePath | str, done: str = "written") -> Iterator[None]:
    """Within, an OSError becomes a UserError: `what` cannot be `done`; see `storage_error`."""
    try:
        yield
    except OSError as error:
        raise storage_error(f"{what} cannot be {done}: {error.strerror or error}", error) from error


explain_read_errors = functools.partial(explain_write_errors, done="read")
