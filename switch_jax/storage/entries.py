"""What is at a path or in a folder: files and folders, their sizes, and when they were written."""

import contextlib
import errno
import os
import stat
from collections.abc import Hashable, Mapping
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

from switch_jax.errors import UserError, storage_error
from switch_jax.storage.clients import errors_named, file_system
from switch_jax.storage.paths import in_bucket


class Entry(NamedTuple):
    """What is at a path.

    Attributes:
      kind: "other" is a pipe, a device, or a link to nothing.
      size: of a file, in bytes; 0 of anything else.
      version: another one once the file was written again, even with the same size.
      modified: when it was written, in seconds since the epoch; 0 for folders in a bucket.
    """

    kind: Literal["file", "folder", "other"]
    size: int
    version: Hashable
    modified: float


def entry(path: str | os.PathLike[str]) -> Entry | None:
    """What is at a path; None where nothing is.

    Raises:
      OSError: it cannot be looked up.
    """
    text = os.fspath(path)
    try:
        if in_bucket(text):
            with errors_named(text):
                return _of_bucket(file_system(text).info(text))
        return _of_disk(os.stat(text))
    except (FileNotFoundError, NotADirectoryError):
        return None


def entries(folder: str | os.PathLike[str]) -> dict[str, Entry]:
    """What is in a folder, sorted by names; nothing where the folder is not there.

    Raises:
      OSError: it cannot be listed.
    """
    text = os.fspath(folder)
    if not in_bucket(text):
        return {name: _in_folder(text, name) for name in list_names(text)}
    try:
        return _in_bucket(text)
    except FileNotFoundError:
        return {}


def list_names(folder: str | os.PathLike[str]) -> list[str]:
    """Names of what is in a folder; as `entries`, but on a disk nothing in it is looked at."""
    text = os.fspath(folder)
    if in_bucket(text):
        return list(entries(text))
    try:
        return sorted(os.listdir(text))
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether the path is that of a file, not of a folder.

    Raises:
      UserError: the storage fails; see `storage_error`.
    """
    return _kind(path) == "file"


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether the path is that of a folder, in a bucket one that holds something; as `is_file`."""
    return _kind(path) == "folder"


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether anything is there; as `is_file`."""
    return _kind(path) is not None


def file_at(path: str) -> Entry:
    """The file at a path.

    Raises:
      OSError: with the path as its file name. errno ENOENT: there is no such file; EISDIR: it is a
        folder, a pipe or a device.
    """
    found = entry(path)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if found.kind != "file":
        raise OSError(errno.EISDIR, "it is a folder, a pipe or a device", path)
    return found


def _kind(path: str | os.PathLike[str]) -> str | None:
    try:
        found = entry(path)
    except OSError as error:
        raise storage_error(f"{path} cannot be read: {error.strerror or error}", error) from error
    except ValueError as error:  # NUL, or a character that no file name has
        raise UserError(f"{os.fspath(path)!r} is no name of a file: {error}") from error
    return found and found.kind


def _in_folder(folder: str, name: str) -> Entry:
    """What has a name in a folder of a disk; "other" is also what is gone or cannot be read."""
    with contextlib.suppress(OSError):
        if found := entry(os.path.join(folder, name)):
            return found
    return Entry("other", 0, None, 0)


def _in_bucket(folder: str) -> dict[str, Entry]:
    with errors_named(folder):
        listed = file_system(folder).ls(folder, detail=True)
    itself = PurePosixPath(folder.partition("://")[2])  # some clients make an object of a folder
    found = {PurePosixPath(item["name"]): _of_bucket(item) for item in listed}
    return {path.name: found[path] for path in sorted(found) if path != itself}


def _of_bucket(found: Mapping[str, Any]) -> Entry:
    if found["type"] == "directory":
        return Entry("folder", 0, None, 0)
    written = found.get("mtime") or found.get("LastModified")
    version = found.get("generation") or found.get("ETag")
    return Entry("file", int(found["size"]), version, written.timestamp() if written else 0)


def _of_disk(found: os.stat_result) -> Entry:
    if stat.S_ISREG(found.st_mode):
        return Entry("file", found.st_size, found.st_mtime_ns, found.st_mtime)
    kind: Literal["folder", "other"] = "folder" if stat.S_ISDIR(found.st_mode) else "other"
    return Entry(kind, 0, None, found.st_mtime)
