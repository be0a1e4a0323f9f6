"""Which files are there, and how large they are: in buckets by listing many at once.

What a listing has said is remembered until `forget`: a request for each of 100,000 files takes an
hour.
"""

import errno
import fnmatch
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence

from switch_jax.storage.clients import errors_named, file_system, object_sizes
from switch_jax.storage.entries import file_at
from switch_jax.storage.paths import in_bucket

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
        # The expression lets * match a slash, too: such a URL has more slashes than the pattern.
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
    known = {path: _SIZES.get(path) for path in paths if in_bucket(path)}
    unknown = {path for path, size in known.items() if size is None}
    for _, names in itertools.groupby(sorted(unknown), os.path.dirname):
        found = _list(os.path.commonprefix(list(names)))
        known.update((url, size) for url, size in found if url in unknown)
    _SIZES.update((path, size) for path, size in known.items() if size is not None)
    return [_known(path, known[path]) if path in known else file_at(path).size for path in paths]


def _known(url: str, size: int | None) -> int:
    if size is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
    return size


def _list(beginning: str) -> Iterator[tuple[str, int]]:
    """URLs and sizes of all objects whose URLs begin so."""
    scheme, _, name = beginning.partition("://")
    with errors_named(beginning):
        for key, size in object_sizes(file_system(beginning), name):
            yield f"{scheme}://{key}", size
