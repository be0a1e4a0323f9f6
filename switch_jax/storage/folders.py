"""Folders of a disk or bucket: listing, reading and renaming them."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath, PurePosixPath
from typing import Any

from etils import epath

from switch_jax.storage.clients import file_system
from switch_jax.storage.paths import in_bucket

_COMMITTED = "commit_success.txt"  # Orbax writes it last, where a folder cannot be renamed
_AT_ONCE = 16  # requests
# Files without which nothing takes a folder for a checkpoint, a run, or a model.
_MAKE_WHOLE = {_COMMITTED, "config.gin", "config.json", "settings.json"}


def has_folders(path: PurePath) -> bool:
    """Whether folders are things of their own, renamed at once; not in a bucket, by its names."""
    return not in_bucket(path)


def list_names(folder: PurePath) -> list[str]:
    """Names of what is in a folder, sorted; none where the folder is not there.

    Raises:
      OSError: it cannot be listed.
    """
    try:
        found = file_system(folder).ls(str(folder), detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return []
    names = {PurePosixPath(path).name for path in found}
    # A bucket may have an object that stands for the folder itself.
    return sorted(names - {folder.name}) if in_bucket(folder) else sorted(names)


def file_states(folder: PurePath) -> dict[str, tuple[int, Any]]:
    """By name each file's size in bytes, and what else changes when it is written anew.

    Empty where the folder is not there. What is neither file nor folder has size -1.

    Raises:
      OSError: it cannot be listed.
    """
    if has_folders(folder):
        return {name: _state(PurePath(folder) / name) for name in _files_on_disk(folder)}
    try:
        found = file_system(folder).ls(str(folder), detail=True)
    except FileNotFoundError:
        return {}
    return {
        PurePosixPath(entry["name"]).name: (
            entry["size"],
            str(entry.get("generation") or entry.get("ETag") or entry.get("mtime")),
        )
        for entry in found
        if entry["type"] == "file"
    }


def list_complete(folder: PurePath) -> list[str]:
    """Names of the folders in a folder that Orbax has completed, sorted."""
    if has_folders(folder):
        return list_names(folder)
    files, names = file_system(folder), list_names(folder)
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        complete = threads.map(lambda name: files.exists(f"{folder}/{name}/{_COMMITTED}"), names)
        return [name for name, there in zip(names, complete, strict=True) if there]


def read_bytes(file: epath.Path) -> bytes:
    """The content of a file, in a bucket by a single request; raises OSError if there is none."""
    return file.read_bytes() if has_folders(file) else file_system(file).cat_file(str(file))


def read_files(folder: epath.Path) -> dict[str, bytes]:
    """The contents of the files right in a folder and in its folders, by their path in it.

    Raises:
      OSError: one cannot be read; it has the file's name.
    """
    if not has_folders(folder):
        files = file_system(folder)
        root = files._strip_protocol(str(folder))
        paths = files.find(root, maxdepth=2)
        contents = files.cat(paths) if len(paths) > 1 else {p: files.cat_file(p) for p in paths}
        return {path.removeprefix(f"{root}/"): content for path, content in contents.items()}
    found = {}
    for parent in (".", *sorted(set(list_names(folder)) - set(_files_on_disk(folder)))):
        for name in _files_on_disk(folder / parent):
            file = folder / parent / name
            try:
                found[os.path.normpath(f"{parent}/{name}")] = file.read_bytes()
            except OSError as error:
                error.filename = str(file)  # an error of reading does not name it
                raise
    return found


def is_whole(folder: PurePath) -> bool:
    """Whether it has a file that `move_folder` moves last; raises OSError if it is not listed."""
    return not _MAKE_WHOLE.isdisjoint(list_names(folder))


def _files_on_disk(folder: PurePath) -> list[str]:
    """Names of what is in a folder and is no folder; none where the folder is not there."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.is_dir())
    except FileNotFoundError:
        return []


def _state(file: PurePath) -> tuple[int, Any]:
    try:
        status = os.stat(file)
    except FileNotFoundError:  # a link to nothing
        return -1, 0
    return status.st_size if stat.S_ISREG(status.st_mode) else -1, status.st_mtime_ns


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
    if has_folders(folder):
        os.replace(folder, target)
        return
    files = file_system(folder)
    root, new_root = (files._strip_protocol(str(path)) for path in (folder, target))
    paths = files.find(root)
    if f"{root}/{_COMMITTED}" in paths:
        files.rm(f"{root}/{_COMMITTED}")
        paths.remove(f"{root}/{_COMMITTED}")
    last = [path for path in paths if PurePosixPath(path).name in _MAKE_WHOLE]
    for moved in (sorted(set(paths) - set(last)), last):
        if moved:
            files.mv(moved, [new_root + path.removeprefix(root) for path in moved])
    if f"{root}/state" in {str(PurePosixPath(path).parent) for path in paths}:
        (target / _COMMITTED).write_text("")  # it was a checkpoint, and is one again
