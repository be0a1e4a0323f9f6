"""Which files are there, and how large they are: in buckets by listing many at once.

What a listing has said is remembered: a request for each of 100,000 files takes an hour.
"""

import contextlib
import errno
import fnmatch
import itertools
import os
import re
from collections.abc import Iterator, Sequence

from etils import epath

from switch_jax.storage.clients import file_system
from switch_jax.storage.entries import file_at
from switch_jax.storage.paths import in_bucket

_SIZES: dict[str, int] = {}  # of objects in buckets, in bytes


def matching(pattern: str) -> list[str]:
    """The objects of a bucket whose URLs match a pattern, sorted; *, ? and [] match no slash.

    Raises:
      OSError: the bucket cannot be listed.
    """
    parts = pattern.split("/")
    found = _list(re.split(r"[*?[]", pattern, maxsplit=1)[0])
    _SIZES.update(found)
    return sorted(
        url
        for url in found
        if url.count("/") == len(parts) - 1 and all(map(fnmatch.fnmatchcase, url.split("/"), parts))
    )


def file_sizes(paths: Sequence[str], again: bool = False) -> list[int]:
    """The sizes of files in bytes; those in buckets as they were when they were first listed.

    Args:
      paths: of files of this machine, or URLs of objects.
      again: list the buckets again.

    Raises:
      OSError: with the path as its file name. errno ENOENT: there is no such file; EISDIR: it is a
        folder, a pipe or a device.
    """
    remote = [path for path in paths if in_bucket(path) and (again or path not in _SIZES)]
    for _, names in itertools.groupby(sorted(remote), os.path.dirname):
        listed = list(names)
        for name in listed:
            _SIZES.pop(name, None)
        found = _list(os.path.commonprefix(listed))
        _SIZES.update((name, found[name]) for name in listed if name in found)
    return [_size_in_bucket(path) if in_bucket(path) else file_at(path).size for path in paths]


def _size_in_bucket(url: str) -> int:
    if url not in _SIZES:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
    return _SIZES[url]


def _list(beginning: str) -> dict[str, int]:
    """The sizes of all objects whose URLs begin so."""
    folder, _, name = beginning.rpartition("/")
    scheme = beginning.partition("://")[0]
    with _client_errors(beginning):
        found = file_system(epath.Path(folder)).find(folder, prefix=name, detail=True)
    return {
        f"{scheme}://{key}": int(of["size"]) for key, of in found.items() if of["type"] == "file"
    }


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
