"""Writing files that are complete or not there, and errors of the storage as one line."""

import contextlib
import functools
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import PurePath
from typing import BinaryIO, cast

from etils import epath

from switch_jax.errors import UserError, storage_error
from switch_jax.storage.clients import file_system
from switch_jax.storage.entries import entry, list_names
from switch_jax.storage.folders import MAKE_WHOLE, move_folder
from switch_jax.storage.paths import bucket_path, in_bucket, resolved


@contextlib.contextmanager
def explain_write_errors(what: PurePath | str, done: str = "written") -> Iterator[None]:
    """Within, an OSError becomes the UserError that `what` cannot be written; see `storage_error`.

    Args:
      what: the file or folder.
      done: what is done to it.
    """
    try:
        yield
    except OSError as error:
        raise storage_error(f"{what} cannot be {done}: {error.strerror or error}", error) from error


explain_read_errors = functools.partial(explain_write_errors, done="read")


def check_writable(folder: epath.Path, what: str) -> None:
    """Writes a file into a folder, or else the nearest one above it that is there, and removes it.

    Args:
      folder: the folder.
      what: names it in errors, as in "MODEL_DIR 'x'".

    Raises:
      UserError: that cannot be done.
    """
    with explain_write_errors(what):
        places = (folder, *folder.parents)
        found = next(place for place in places if in_bucket(place) or place.exists())
        file = found / f".writable-{uuid.uuid4().hex}"  # other processes do the same
        try:
            file.write_bytes(b"")
            file.unlink()
        except NotADirectoryError as error:
            raise UserError(f"{what} cannot be written: {found} is a file, no folder") from error
        except FileNotFoundError as error:
            if not in_bucket(folder):
                raise
            bucket, _ = bucket_path(str(folder))
            raise UserError(f"{what} cannot be written: there is no bucket {bucket}") from error


def atomic_write(file: PurePath, content: str | bytes) -> None:
    """Writes all of a file, or nothing: a process that is killed leaves the old one.

    Raises:
      OSError: it cannot be written.
    """
    with open_atomic(file) as new:
        new.write(content.encode() if isinstance(content, str) else content)


def write_file(file: epath.Path, content: str | bytes, what: str = "") -> None:
    """`atomic_write`, into a folder that is made where it is not there.

    Raises:
      UserError: `what`, or else the file, cannot be written.
    """
    with explain_write_errors(what or file):
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, content)


@contextlib.contextmanager
def open_atomic(file: PurePath) -> Iterator[BinaryIO]:
    """A new file to write to, which replaces `file` at the end, and is removed after an error.

    Other processes, of other machines too, may do the same at the same time.
    """
    write = _open_object if in_bucket(file) else _open_and_rename
    with write(epath.Path(file)) as new:
        yield new


@contextlib.contextmanager
def _open_and_rename(file: epath.Path) -> Iterator[BinaryIO]:
    unfinished = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        with open(unfinished, "wb") as new:
            yield new
            new.flush()
            os.fsync(new.fileno())
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def _open_object(file: epath.Path) -> Iterator[BinaryIO]:
    """An object in a bucket appears as a whole, at the end of its upload from this machine."""
    with tempfile.NamedTemporaryFile(prefix="switch_jax_") as new:
        yield cast(BinaryIO, new)
        new.flush()
        file_system(file).put_file(new.name, str(file))


@contextlib.contextmanager
def new_folder(path: PurePath) -> Iterator[epath.Path]:
    """An empty folder to write to, which becomes `path` at the end; after an error it is removed.

    In a bucket that takes a request for each object, see `move_folder`.

    Raises:
      UserError: `path` is there already, or cannot be made.
    """
    folder = resolved(epath.Path(path))
    unfinished = folder.with_name(f"{_unfinished(folder)}{uuid.uuid4().hex}")
    with explain_write_errors(path):
        found = entry(folder)
        if found and (found.kind != "folder" or list_names(folder)):
            raise UserError(
                f"{path} is there already: name a folder that is not, or an empty one"
                f"{_of_a_killed_move(folder)}"
            )
        unfinished.mkdir(parents=True)
        try:
            yield unfinished
            move_folder(unfinished, folder)
        finally:
            with contextlib.suppress(OSError):
                if not (in_bucket(folder) and list_names(folder)):  # else the rest of a move
                    unfinished.rmtree(missing_ok=True)


def _unfinished(folder: epath.Path) -> str:
    """How the names of folders begin that are to become this one."""
    return f".{folder.name}.unfinished-"


def _of_a_killed_move(folder: epath.Path) -> str:
    """The end of a message where a folder may be what a killed `new_folder` left of a bucket."""
    if in_bucket(folder) and MAKE_WHOLE.isdisjoint(list_names(folder)):
        for name in list_names(folder.parent):
            if name.startswith(_unfinished(folder)):
                return (
                    f"; {name} beside it is of a job that was killed: if it was to become "
                    f"{folder.name}, remove both"
                )
    return ""
