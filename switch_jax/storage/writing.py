"""Writes files and folders that are complete or not there."""

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import PurePath, PurePosixPath
from typing import BinaryIO, cast

from etils import epath

from switch_jax.storage.clients import file_system
from switch_jax.storage.errors import explain_write_errors
from switch_jax.storage.listing import COMMITTED, entry, list_names
from switch_jax.storage.paths import in_bucket, resolved
from switch_jax.storage.reading import read_bytes
from switch_jax.utils.errors import UserError

# Files without which nothing takes a folder for a checkpoint, a run, or a model.
_MAKE_WHOLE = {COMMITTED, "config.gin", "config.json", "settings.json"}
_CLAIM = ".being-written"  # in a folder of a bucket: a process moves its files there


def check_writable(folder: epath.Path, what: str) -> None:
    """Writes and removes a file in a folder, or the nearest above it; UserError names `what`."""
    with explain_write_errors(what):
        places = (folder, *folder.parents)
        found = next(place for place in places if in_bucket(place) or place.exists())
        file = found / f".writable-{uuid.uuid4().hex}"  # other processes do the same
        file.write_bytes(b"")
        file.unlink()


def atomic_write(file: PurePath, content: str | bytes) -> None:
    """Writes all of a file, or leaves the old one if killed; OSError if it cannot be written."""
    with open_atomic(file) as new:
        new.write(content.encode() if isinstance(content, str) else content)


def write_file(file: epath.Path, content: str | bytes, what: str = "") -> None:
    """Does `atomic_write` in a folder that is made for it; raises UserError if that fails."""
    with explain_write_errors(what or file):
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, content)


def open_atomic(file: PurePath) -> AbstractContextManager[BinaryIO]:
    """Opens a new file that replaces `file` at the end, and is removed after an error.

    Other processes, of other machines too, may do the same at the same time.
    """
    return (_open_object if in_bucket(file) else _open_and_rename)(epath.Path(file))


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
    """Yields an empty folder that becomes `path` at the end, and is removed after an error.

    In a bucket that takes a request for each object, see `move_folder`. Raises UserError where
    `path` is there already, or cannot be made.
    """
    folder = resolved(epath.Path(path))
    beginning = f".{folder.name}.unfinished-"
    unfinished = folder.with_name(f"{beginning}{uuid.uuid4().hex}")
    with explain_write_errors(path):
        found = entry(folder)
        if found and (found.kind != "folder" or list_names(folder)):
            message = f"{path} is there already: name a folder that is not, or an empty one"
            beside = [name for name in list_names(folder.parent) if name.startswith(beginning)]
            if in_bucket(folder) and beside and _MAKE_WHOLE.isdisjoint(list_names(folder)):
                message += (
                    f"; {beside[0]} beside it is of a job that was killed: if it was to become "
                    f"{folder.name}, remove both"
                )
            raise UserError(message)
        unfinished.mkdir(parents=True)
        moving = False
        try:
            yield unfinished
            with _claimed(folder):
                moving = in_bucket(folder)
                move_folder(unfinished, folder)
        finally:
            with contextlib.suppress(OSError):
                if not (moving and list_names(folder)):  # else the rest of a move
                    unfinished.rmtree(missing_ok=True)


@contextlib.contextmanager
def _claimed(folder: epath.Path) -> Iterator[None]:
    """Lets this process alone move files to the folder; UserError if another one has, or does.

    A disk replaces an empty folder only. In a bucket the process that creates an object may.
    """
    if not in_bucket(folder):
        yield
        return
    claim = folder / _CLAIM
    refusal = UserError(f"{folder} is there already: another job has written it meanwhile")
    if not _create(claim):
        raise refusal
    try:
        if list_names(folder) != [_CLAIM]:
            raise refusal
        yield
    finally:
        with contextlib.suppress(OSError):
            claim.unlink()


def _create(file: epath.Path) -> bool:
    """Creates an object in a bucket; returns False where another process has created it."""
    content = uuid.uuid4().hex.encode()
    try:
        file_system(file).pipe_file(str(file), content, mode="create")
    except OSError:  # of several kinds; or the answer was lost, and the repeated request refused
        if not entry(file):
            raise
        return read_bytes(file) == content
    return True


def move_folder(folder: epath.Path, target: epath.Path) -> None:
    """Gives a folder another name on the same disk or in the same bucket; no bytes are copied.

    A bucket moves the objects one by one. What says that a checkpoint is complete goes first, and
    what makes a folder a run or a model comes last, so nothing is taken for whole meanwhile.

    `target` is not there, or on a disk an empty folder. Raises OSError if it cannot be moved.
    """
    if not in_bucket(folder):
        os.replace(folder, target)
        return
    files = file_system(folder)
    root, new_root = (files._strip_protocol(str(path)) for path in (folder, target))
    paths = files.find(root)
    if f"{root}/{COMMITTED}" in paths:
        files.rm(f"{root}/{COMMITTED}")
        paths.remove(f"{root}/{COMMITTED}")
    last = [path for path in paths if PurePosixPath(path).name in _MAKE_WHOLE]
    for moved in (sorted(set(paths) - set(last)), last):
        if moved:
            files.mv(moved, [new_root + path.removeprefix(root) for path in moved])
    if f"{root}/state" in {str(PurePosixPath(path).parent) for path in paths}:
        (target / COMMITTED).write_text("")  # it was a checkpoint, and is one again
