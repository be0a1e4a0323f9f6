"""A file that grows: on a disk by appending; in a bucket in parts, since objects are written whole.

The parts of FILE are FILE, FILE.000001, FILE.000002 and so on. An addition rewrites the last one,
or begins the next where that has grown to `PART_BYTES`, so it costs the same however long the file
is. A reader joins the parts, and sees whole additions only.
"""

import contextlib
import os

from etils import epath

from switch_jax.storage.clients import errors_named, file_system
from switch_jax.storage.conditional import SharedObject, Version
from switch_jax.storage.entries import entries, list_names
from switch_jax.storage.folders import read_bytes
from switch_jax.storage.lease import LostLeaseError, check_leases
from switch_jax.storage.paths import in_bucket

PART_BYTES = 256 * 1024


def appended_file(path: epath.Path) -> "AppendedFile":
    """The file to append to, by this process alone; it need not be there, but its folder must."""
    return _OfBucket(path) if in_bucket(path) else _OfDisk(path)


def read_appended(path: epath.Path) -> bytes:
    """The content of a file that may be in parts.

    Raises:
      FileNotFoundError: it is not there.
      OSError: it cannot be read.
    """
    parts = _parts(path)
    if not parts or not in_bucket(path):  # on a disk, of a run that has moved from a bucket
        return b"".join(map(read_bytes, (path, *parts)))
    files = file_system(path)
    urls = [files._strip_protocol(str(part)) for part in (path, *parts)]
    with errors_named(str(path)):
        contents = files.cat(urls)
    return b"".join(contents[url] for url in urls)


def last_written(path: epath.Path) -> float | None:
    """When a file that may be in parts was written last, in seconds since the epoch.

    Returns:
      None: it is not there.

    Raises:
      OSError: it cannot be looked up.
    """
    found = entries(path.parent).items()
    times = [of.modified for name, of in found if name == path.name or _is_part(name, path)]
    return max(times, default=None)


def _parts(path: epath.Path) -> list[epath.Path]:
    """The parts after the first."""
    return [path.parent / name for name in list_names(path.parent) if _is_part(name, path)]


def _is_part(name: str, path: epath.Path) -> bool:
    """Whether it is the name of a part after the first."""
    first, _, number = name.rpartition(".")
    return first == path.name and number.isdecimal()


class _OfDisk:
    """By appending, to the last part of a file that comes from a bucket."""

    def __init__(self, path: epath.Path) -> None:
        self._path = [path, *_parts(path)][-1]

    def end_line(self) -> None:
        """Ends a line that a killed process has left half-written; raises as `append`."""
        with contextlib.suppress(FileNotFoundError), open(self._path, "rb+") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            if file.read() not in (b"", b"\n"):
                file.write(b"\n")

    def append(self, data: bytes) -> None:
        """Writes all of it at the end; raises OSError or LostLeaseError if it cannot."""
        with open(self._path, "ab") as file:
            file.write(data)


class _OfBucket:
    """Each write depends on the last one, so that two processes never mix."""

    def __init__(self, path: epath.Path) -> None:
        self._path = path
        self._number: int | None = None  # of the part that is written; None: it is not known yet
        self._last = Version(None, 0)

    def end_line(self) -> None:
        self._open_last()
        if not (self._last.content or b"\n").endswith(b"\n"):  # a run that has moved from a disk
            self.append(b"\n")

    def append(self, data: bytes) -> None:
        check_leases()
        if self._number is None:
            self._open_last()
        elif len(self._last.content or b"") >= PART_BYTES:
            self._open(self._number + 1)
        content = (self._last.content or b"") + data
        try:
            written = self._object.write(content, self._last)
        except OSError:
            self._number = None  # it may have been written all the same: the next call looks
            raise
        if written is None:
            raise LostLeaseError(
                f"{self._path} was changed by another process while this one wrote it: give each "
                "job a folder of its own"
            )
        self._last = written

    def _open_last(self) -> None:
        parts = _parts(self._path)
        self._open(int(parts[-1].suffix[1:]) if parts else 0)

    def _open(self, number: int) -> None:
        path = self._path.with_name(f"{self._path.name}.{number:06}") if number else self._path
        self._object = SharedObject(path)
        self._number, self._last = number, self._object.read()


AppendedFile = _OfDisk | _OfBucket
