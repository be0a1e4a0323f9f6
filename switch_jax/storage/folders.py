"""Folders of a disk or bucket, each listed with one request."""

import os
from pathlib import PurePath, PurePosixPath
from typing import Any

from etils import epath

from switch_jax.storage.clients import file_system
from switch_jax.storage.lease import check_lease
from switch_jax.storage.paths import in_bucket

_COMMITTED = "commit_success.txt"  # Orbax writes it last, where a folder cannot be renamed


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
        try:
            with os.scandir(folder) as entries:
                return {
                    e.name: (e.stat().st_size if e.is_file() else -1, e.stat().st_mtime_ns)
                    for e in entries
                    if not e.is_dir()
                }
        except FileNotFoundError:
            return {}
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
    markers = file_system(folder).glob(f"{folder}/*/{_COMMITTED}")
    return sorted(PurePosixPath(path).parent.name for path in markers)


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
    for file in (*folder.glob("*"), *folder.glob("*/*")):
        if not file.is_dir():
            try:
                found[str(file.relative_to(folder))] = file.read_bytes()
            except OSError as error:
                error.filename = str(file)  # an error of reading does not name it
                raise
    return found


def move_folder(folder: epath.Path, target: epath.Path) -> None:
    """Gives a folder another name on the same disk or in the same bucket; no bytes are copied.

    A bucket moves the objects one by one, first the one that says that a checkpoint is complete.

    Args:
      folder: what is moved.
      target: it is not there, or on a disk an empty folder. The folder above it is there.

    Raises:
      OSError: it cannot be moved.
    """
    if has_folders(folder):
        os.replace(folder, target)
        return
    check_lease(folder)
    (folder / _COMMITTED).unlink(missing_ok=True)
    files = file_system(folder)
    root, new_root = (files._strip_protocol(str(path)) for path in (folder, target))
    paths = files.find(root)
    files.mv(paths, [new_root + path.removeprefix(root) for path in paths])
