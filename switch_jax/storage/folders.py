"""Folders as a whole: complete ones, and giving them another name; and whole files."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath, PurePosixPath

from etils import epath

from switch_jax.storage.clients import errors_named, file_system
from switch_jax.storage.entries import list_names
from switch_jax.storage.paths import in_bucket

_COMMITTED = "commit_success.txt"  # Orbax writes it last, where a folder cannot be renamed
_AT_ONCE = 16  # requests
# Files without which nothing takes a folder for a checkpoint, a run, or a model.
MAKE_WHOLE = {_COMMITTED, "config.gin", "config.json", "settings.json"}


def list_complete(folder: PurePath) -> list[str]:
    """Names of the folders in a folder that Orbax has completed, sorted."""
    if not in_bucket(folder):
        return list_names(folder)
    files, names = file_system(folder), list_names(folder)
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        complete = threads.map(lambda name: files.exists(f"{folder}/{name}/{_COMMITTED}"), names)
        return [name for name, there in zip(names, complete, strict=True) if there]


def read_bytes(file: epath.Path) -> bytes:
    """The content of a file, in a bucket by a single request.

    Raises:
      OSError: it cannot be read; it has the file's name.
    """
    if in_bucket(file):
        with errors_named(str(file)):
            return file_system(file).cat_file(str(file))
    try:
        return file.read_bytes()
    except OSError as error:
        error.filename = str(file)  # an error of reading does not name it
        raise


def move_folder(folder: epath.Path, target: epath.Path) -> None:
    """Gives a folder another name on the same disk or in the same bucket; no bytes are copied.

    A bucket moves the objects one by one. What says that a checkpoint is complete goes first, and
    what makes a folder a run or a model comes last, so nothing is taken for whole meanwhile.

    Args:
      folder: what is moved.
      target: it is not there, or on a disk an empty folder. The folder above it is there.

    Raises:
      OSError: it cannot be moved.
    """
    if not in_bucket(folder):
        os.replace(folder, target)
        return
    files = file_system(folder)
    root, new_root = (files._strip_protocol(str(path)) for path in (folder, target))
    paths = files.find(root)
    if f"{root}/{_COMMITTED}" in paths:
        files.rm(f"{root}/{_COMMITTED}")
        paths.remove(f"{root}/{_COMMITTED}")
    last = [path for path in paths if PurePosixPath(path).name in MAKE_WHOLE]
    for moved in (sorted(set(paths) - set(last)), last):
        if moved:
            files.mv(moved, [new_root + path.removeprefix(root) for path in moved])
    if f"{root}/state" in {str(PurePosixPath(path).parent) for path in paths}:
        (target / _COMMITTED).write_text("")  # it was a checkpoint, and is one again
