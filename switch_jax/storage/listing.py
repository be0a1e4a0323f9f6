"""Looks up paths, lists folders, and finds the files that match a pattern, with their sizes.

In buckets many files are listed at once, since a request for each of 100,000 files takes an hour.
Their sizes, and what matches a pattern, are kept until `relist`.
"""

import errno
import fnmatch
import itertools
import os
import re
import stat
from collections.abc import Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath, PurePosixPath
from typing import Literal, NamedTuple

from switch_jax.storage.clients import file_system
from switch_jax.storage.errors import as_os_errors, explain_read_errors
from switch_jax.storage.paths import in_bucket

COMMITTED = "commit_success.txt"  # Orbax writes it last, where a folder cannot be renamed
_AT_ONCE = 16  # requests

_MATCHING: dict[str, list[str]] = {}  # by pattern
_SIZES: dict[str, int] = {}  # of objects in buckets, in bytes


class Entry(NamedTuple):
    """What is at a path; "other" is a pipe or a device.

    `size` is in bytes, 0 of anything but a file. `version` is another one once the file was written
    again, even with the same size. `modified` is when a file on a disk or at gs:// was written, in
    seconds since the epoch.
    """

    kind: Literal["file", "folder", "other"]
    size: int = 0
    version: Hashable = None
    modified: float = 0.0


def entry(path: str | os.PathLike[str]) -> Entry | None:
    """Looks up what is at a path, None if nothing is; raises OSError if that fails."""
    text = os.fspath(path)
    try:
        if in_bucket(text):
            return _bucket_entry(text)
        found = os.stat(text)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISREG(found.st_mode):
        return Entry("file", found.st_size, found.st_mtime_ns, found.st_mtime)
    return Entry("folder" if stat.S_ISDIR(found.st_mode) else "other")


def _bucket_entry(url: str) -> Entry:
    with as_os_errors(url):
        found = file_system(url).info(url)
    if found["type"] == "directory":
        return Entry("folder")
    version, written = found.get("generation") or found.get("ETag"), found.get("mtime")
    return Entry("file", int(found["size"]), version, written.timestamp() if written else 0.0)


def is_file(path: str | os.PathLike[str]) -> bool:
    """Says whether a file is at the path, not a folder; raises UserError if the storage fails."""
    return _kind(path) == "file"


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Says whether a folder is there, in a bucket one that is not empty; raises as `is_file`."""
    return _kind(path) == "folder"


def exists(path: str | os.PathLike[str]) -> bool:
    """Says whether anything is at the path; raises as `is_file`."""
    return _kind(path) is not None


def _kind(path: str | os.PathLike[str]) -> str | None:
    with explain_read_errors(os.fspath(path)):
        found = entry(path)
    return found and found.kind


def file_at(path: str) -> Entry:
    """Looks up a file; raises an OSError with the path, EISDIR also for a pipe or a device."""
    found = entry(path)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if found.kind != "file":
        raise OSError(errno.EISDIR, "it is a folder, a pipe or a device", path)
    return found


def list_names(folder: str | os.PathLike[str]) -> list[str]:
    """Lists the names in a folder, sorted, none if it is not there; OSError if that fails."""
    text = os.fspath(folder)
    try:
        if not in_bucket(text):
            return sorted(os.listdir(text))
        with as_os_errors(text):
            found = map(PurePosixPath, file_system(text).ls(text, detail=False))
    except (FileNotFoundError, NotADirectoryError):
        return []
    itself = PurePosixPath(text.partition("://")[2])  # some clients make an object of a folder
    return sorted({path.name for path in found if path != itself})


def list_complete(folder: PurePath) -> list[str]:
    """Lists the folders in a folder that Orbax has completed, sorted."""
    names = list_names(folder)
    if not in_bucket(folder):
        return names
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        complete = threads.map(lambda name: entry(folder / name / COMMITTED) is not None, names)
        return list(itertools.compress(names, complete))


def relist(patterns: Iterable[str]) -> None:
    """Forgets what was found for these patterns and URLs: their buckets are listed again."""
    for pattern in patterns:
        for url in _MATCHING.pop(pattern, [pattern]):
            _SIZES.pop(url, None)


def matching(pattern: str) -> list[str]:
    """Lists the objects of a bucket that match a pattern, sorted; *, ? and [] match no slash.

    Raises OSError if the bucket cannot be listed.
    """
    if pattern not in _MATCHING:
        matches = re.compile(fnmatch.translate(pattern)).match
        # The expression lets * match a slash, too: such a URL has more slashes than the pattern.
        slashes = pattern.count("/")
        found = _list(re.split(r"[*?[]", pattern, maxsplit=1)[0])
        _MATCHING[pattern] = sorted(
            url for url in found if url.count("/") == slashes and matches(url)
        )
    return _MATCHING[pattern]


def file_sizes(paths: Sequence[str]) -> list[int]:
    """Returns sizes in bytes, of objects as they were when listed; raises as `file_at`."""
    unknown = {path for path in paths if in_bucket(path) and path not in _SIZES}
    for _, names in itertools.groupby(sorted(unknown), os.path.dirname):
        _list(os.path.commonprefix(list(names)))
    return [_SIZES[path] if path in _SIZES else file_at(path).size for path in paths]


def _list(beginning: str) -> dict[str, int]:
    """Lists all objects whose URLs begin with `beginning`, with their sizes."""
    scheme, _, name = beginning.partition("://")
    folder, slash, prefix = name.rpartition("/")
    if not slash:  # no bucket is listed for a part of its name
        return {}
    with as_os_errors(beginning):
        found = file_system(beginning).find(folder, prefix=prefix, detail=True)
    sizes = {
        f"{scheme}://{name}": info["size"]
        for name, info in found.items()
        if info["type"] == "file" and not name.endswith("/")  # else it stands for a folder
    }
    _SIZES.update(sizes)
    return sizes
