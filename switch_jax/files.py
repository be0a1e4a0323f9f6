"""Writing files that are complete or not there, and errors of the disk as one line."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from switch_jax.errors import UserError, storage_error


@contextlib.contextmanager
def explain_write_errors(what: Path | str) -> Iterator[None]:
    """Within, an OSError becomes the UserError that `what` cannot be written; see `storage_error`.

    Args:
      what: the file or folder.
    """
    try:
        yield
    except OSError as error:
        raise storage_error(f"{what} cannot be written: {error.strerror}", error) from error


def atomic_write(file: Path, text: str) -> None:
    """Writes all of a file, or nothing: a process that is killed leaves the old one.

    Raises:
      OSError: it cannot be written.
    """
    with open_atomic(file) as new:
        new.write(text.encode())


@contextlib.contextmanager
def open_atomic(file: Path) -> Iterator[BinaryIO]:
    """A new file to write to, which replaces `file` at the end, and is removed after an error.

    Other processes, of other machines too, may do the same at the same time.
    """
    unfinished = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        with unfinished.open("wb") as new:
            yield new
            new.flush()
            os.fsync(new.fileno())
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to write to, which becomes `folder` at the end; after an error it is removed.

    Raises:
      UserError: `folder` is there already, or cannot be made.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already: name a folder that is not, or an empty one")
    unfinished = folder.with_name(f".{folder.name}.unfinished-{uuid.uuid4().hex}")
    with explain_write_errors(folder):
        unfinished.mkdir(parents=True)
        try:
            yield unfinished
            unfinished.replace(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
