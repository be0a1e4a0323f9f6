"""Turns what storage clients raise into OSErrors, and OSErrors into one line for the user."""

import contextlib
import errno
import functools
import os
from collections.abc import Iterator
from pathlib import PurePath

from switch_jax.utils.errors import UserError, passing_error, storage_error


@contextlib.contextmanager
def as_os_errors(path: str) -> Iterator[None]:
    """Turns what a client raises in the block into an OSError with an errno and the path."""
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
    """Turns an OSError in the block into `storage_error`: `what` cannot be `done`."""
    try:
        yield
    except OSError as error:
        raise storage_error(f"{what} cannot be {done}: {error.strerror or error}", error) from error


explain_read_errors = functools.partial(explain_write_errors, done="read")


@contextlib.contextmanager
def explain_state_errors(what: PurePath | str) -> Iterator[None]:
    """Turns an OSError in the block into a TransientError, whatever the reason.

    `what` is a file or folder of a run: it is not damaged, and may be read later.
    """
    try:
        yield
    except OSError as error:
        raise passing_error(f"{what} cannot be read: {error.strerror or error}") from error
