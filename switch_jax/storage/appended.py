"""Files that grow: on a disk by appending; in a bucket in parts, since objects are written whole.

The parts of FILE are FILE, FILE.000001, FILE.000002 and so on. An addition rewrites the last one,
or begins the next once that has `PART_BYTES`. A reader joins them, and sees whole additions only.
"""

import contextlib
import os
import re
import tempfile
from pathlib import Path

from etils import epath

from switch_jax.storage.clients import file_system
from switch_jax.storage.errors import as_os_errors
from switch_jax.storage.listing import entry, list_names
from switch_jax.storage.locking.conditional_writes import SharedObject, Version
from switch_jax.storage.locking.lease import LostLeaseError, check_leases
from switch_jax.storage.paths import in_bucket
from switch_jax.storage.reading import read_bytes

PART_BYTES = 256 * 1024


def appended_file(path: epath.Path) -> "AppendedFile":
    """Opens a file that this process alone appends to; its folder is there, it need not be."""
    return _BucketFile(path) if in_bucket(path) else _DiskFile(path)


def read_appended(path: epath.Path) -> bytes:
    """The content of a file that may be in parts; raises OSError if it cannot be read."""
    parts = _parts(path)
    if not parts or not in_bucket(path):  # on a disk, of a run that has moved from a bucket
        return b"".join(map(read_bytes, (path, *parts)))
    files = file_system(path)
    urls = [files._strip_protocol(str(part)) for part in (path, *parts)]
    with as_os_errors(str(path)):
        contents = files.cat(urls)
    return b"".join(contents[url] for url in urls)


def last_written(path: epath.Path) -> float | None:
    """Returns when a file, in parts or not, was last written, in seconds since the epoch."""
    found = entry([path, *_parts(path)][-1])
    return found and found.modified


def _parts(path: epath.Path) -> list[epath.Path]:
    """Lists the parts after the first, in their order."""
    is_part = re.compile(re.escape(path.name) + r"\.\d+").fullmatch
    return [path.parent / name for name in filter(is_part, list_names(path.parent))]


class _DiskFile:
    """A file on a disk; where the run has moved from a bucket, the last part is appended to."""

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


class _BucketFile:
    """An object in a bucket, written on the condition that nobody else has changed it since."""

    def __init__(self, path: epath.Path) -> None:
        self._path = path
        self._number: int | None = None  # of the part that is written; None: it is not known yet
        self._last = Version()

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


AppendedFile = _DiskFile | _BucketFile


class Spool:
    """A folder `local` on this machine; `send` copies what its files have grown by elsewhere."""

    def __init__(self, folder: epath.Path) -> None:
        """`folder` is where the files are copied to; on a disk it is `local` itself."""
        self._folder, self.local = folder, Path(folder)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._sent: dict[Path, tuple[AppendedFile, int]] = {}
        if in_bucket(folder):
            self._temporary = tempfile.TemporaryDirectory(prefix="switch_jax_")
            self.local = Path(self._temporary.name)

    def send(self) -> None:
        """Brings what is new to the folder; raises OSError if it cannot be written."""
        if self._temporary is None:
            return
        for file in sorted(path for path in self.local.rglob("*") if path.is_file()):
            target = self._folder / file.relative_to(self.local).as_posix()
            sent, size = self._sent.setdefault(file, (appended_file(target), 0))
            with file.open("rb") as opened:
                opened.seek(size)
                if new := opened.read():
                    sent.append(new)
            self._sent[file] = sent, size + len(new)

    def close(self) -> None:
        """Sends the rest, and removes the local files where they were only passing through."""
        try:
            self.send()
        finally:
            if self._temporary is not None:
                self._temporary.cleanup()
