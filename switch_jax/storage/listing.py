"""Which files are there, and how large they are: in buckets by listing many at once.

What a listing has said is remembered until `forget`: a request for each of 100,000 files takes an
hour.
"""

import contextlib
import errno
import fnmatch
import itertools
import os
import re
import stat
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

from etils import epath

from switch_jax.storage.clients import file_system
from switch_jax.storage.paths import in_bucket

_PAGE = 1000  # objects of a page of a listing: Cloud Storage gives no more
_MATCHING: dict[str, list[str]] = {}  # by pattern
_SIZES: dict[str, int] = {}  # of objects in buckets, in bytes


def forget(patterns: Iterable[str]) -> None:
    """The buckets of these patterns and URLs are listed anew when they are next asked about."""
    for pattern in patterns:
        for url in _MATCHING.pop(pattern, [pattern]):
            _SIZES.pop(url, None)


def matching(pattern: str) -> list[str]:
    """The objects of a bucket whose URLs match a pattern, sorted; *, ? and [] match no slash.

    Raises:
      OSError: the bucket cannot be listed.
    """
    if pattern not in _MATCHING:
        matches = re.compile(fnmatch.translate(pattern)).match
        # With as many slashes as the pattern has, none is left for * to match.
        slashes = pattern.count("/")
        found = {
            url: size
            for url, size in _list(re.split(r"[*?[]", pattern, maxsplit=1)[0])
            if url.count("/") == slashes and matches(url)
        }
        _SIZES.update(found)
        _MATCHING[pattern] = sorted(found)
    return _MATCHING[pattern]


def file_sizes(paths: Sequence[str]) -> list[int]:
    """The sizes of files in bytes; those in buckets as they were when they were listed.

    Args:
      paths: of files of this machine, or URLs of objects.

    Raises:
      OSError: with the path as its file name. errno ENOENT: there is no such file; EISDIR: it is a
        folder, a pipe or a device.
    """
    unknown = {path for path in paths if in_bucket(path) and path not in _SIZES}
    for _, names in itertools.groupby(sorted(unknown), os.path.dirname):
        found = _list(os.path.commonprefix(list(names)))
        _SIZES.update((url, size) for url, size in found if url in unknown)
    return [_size_in_bucket(path) if in_bucket(path) else _status(path).st_size for path in paths]


def file_version(path: str) -> tuple[int, Hashable]:
    """The size of a file now, and what differs once it was written again, even with that size.

    Raises:
      OSError: see `file_sizes`.
    """
    if not in_bucket(path):
        status = _status(path)
        return status.st_size, status.st_mtime_ns
    with _client_errors(path):
        found = file_system(epath.Path(path)).info(path)
        return found["size"], found.get("generation") or found.get("ETag")


def _size_in_bucket(url: str) -> int:
    if url not in _SIZES:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
    return _SIZES[url]


def _status(path: str) -> os.stat_result:
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EISDIR, "it is a folder, a pipe or a device", path)
    return found


def _list(beginning: str) -> Iterator[tuple[str, int]]:
    """URLs and sizes of all objects whose URLs begin so."""
    folder, _, name = beginning.rpartition("/")
    scheme = beginning.partition("://")[0]
    with _client_errors(beginning):
        files = file_system(epath.Path(folder))
        if scheme == "gs":
            yield from _list_cloud_storage(files, beginning)
            return
        for key, found in files.find(folder, prefix=name, detail=True).items():
            if found["type"] == "file":
                yield f"{scheme}://{key}", found["size"]


def _list_cloud_storage(files: Any, beginning: str) -> Iterator[tuple[str, int]]:
    """As `_list`; `find` of the client asks for all fields of an object, and keeps them."""
    bucket, _, prefix = beginning.removeprefix("gs://").partition("/")
    options = {"prefix": prefix, "maxResults": _PAGE, "fields": "items(name,size),nextPageToken"}
    while True:
        page = files.call("GET", "b/{}/o", bucket, json_out=True, **options)
        for found in page.get("items", ()):
            if not found["name"].endswith("/"):  # it stands for a folder
                yield f"gs://{bucket}/{found['name']}", int(found["size"])
        if "nextPageToken" not in page:
            return
        options["pageToken"] = page["nextPageToken"]


@contextlib.contextmanager
def _client_errors(url: str) -> Iterator[None]:
    """Within, whatever a client raises becomes an OSError with errno and file name."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from error
    except Exception as error:
        refused = isinstance(error, PermissionError) or str(getattr(error, "code", "")) == "401"
        code = errno.EACCES if refused or "Forbidden" in str(error) else errno.EIO
        reason = str(error).strip().split("\n")[0]
        raise OSError(code, f"{os.strerror(code)} ({reason})", url) from error
