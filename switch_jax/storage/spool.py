"""Files of a bucket for programs that read or write disks alone."""

import contextlib
import functools
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from etils import epath

from switch_jax.storage.appended import AppendedFile, appended_file
from switch_jax.storage.entries import file_at
from switch_jax.storage.paths import in_bucket
from switch_jax.storage.ranges import read_range

_READ = 8 * 2**20  # bytes of a file that are read at a time
_COPIES_AT_ONCE = 16
_folder_of_copies: tempfile.TemporaryDirectory[str] | None = None  # removed with the process
_copying = threading.Lock()


def local_copy(file: str | os.PathLike[str]) -> str:
    """The path of a file on this machine; one in a bucket is copied, again where it has changed.

    Raises:
      OSError: it cannot be read.
    """
    path = os.fspath(file)
    if not in_bucket(path):
        return path
    with _copying:
        return _copied(path, file_at(path).version)


@functools.cache
def _copied(url: str, version: Any) -> str:
    global _folder_of_copies
    if _folder_of_copies is None:
        _folder_of_copies = tempfile.TemporaryDirectory(prefix="switch_jax_")
    name = hashlib.sha256(repr((url, version)).encode()).hexdigest()[:16]
    target = Path(_folder_of_copies.name, name, url.rpartition("/")[2])
    _copy(url, target)
    return str(target)


@contextlib.contextmanager
def header_here(file: epath.Path, header_size: Callable[[bytes], int]) -> Iterator[str]:
    """Within, the path of a file on this machine; zeros follow the header of one in a bucket.

    Args:
      file: the file.
      header_size: from the first 8 bytes to how many bytes the header takes, with these.

    Raises:
      OSError: it cannot be read.
    """
    url = str(file)
    if not in_bucket(file):
        yield url
        return
    with tempfile.NamedTemporaryFile(prefix="switch_jax_") as copy:
        size = file_at(url).size
        beginning = read_range(url, 0, 8)
        copy.write(read_range(url, 0, min(header_size(beginning), size)))
        copy.truncate(size)  # takes no room
        yield copy.name


@contextlib.contextmanager
def copies_here(files: Sequence[str]) -> Iterator[list[str]]:
    """Within, paths of files on this machine, of copies where they are in a bucket.

    Raises:
      OSError: one cannot be read or copied; it has the file's name.
    """
    if not any(map(in_bucket, files)):
        yield list(files)
        return
    with tempfile.TemporaryDirectory(prefix="switch_jax_") as folder:
        targets = [Path(folder, str(i), url.rpartition("/")[2]) for i, url in enumerate(files)]
        with ThreadPoolExecutor(_COPIES_AT_ONCE) as threads:
            list(threads.map(_copy, files, targets))
        yield list(map(str, targets))


def _copy(url: str, target: Path) -> None:
    """Copies a file of a bucket, as it is now, into a new folder of this machine."""
    size = file_at(url).size
    try:
        target.parent.mkdir(exist_ok=True)
        with target.open("wb") as copied:
            for begin in range(0, size, _READ):
                copied.write(read_range(url, begin, min(begin + _READ, size)))
    except OSError as error:
        if error.filename != url:  # this machine's disk is full, say
            raise OSError(error.errno, f"{error.strerror}, in {target.parent}", url) from error
        raise


class Spool:
    """A folder of this machine whose files become those of a folder of any storage.

    Attributes:
      local: where to write; the files must only grow.
    """

    def __init__(self, folder: epath.Path) -> None:
        """`folder`: where the files are to be; one of a disk is written to directly."""
        self._folder, self._temporary = folder, None
        self._sent: dict[Path, tuple[AppendedFile, int]] = {}
        if in_bucket(folder):
            self._temporary = tempfile.TemporaryDirectory(prefix="switch_jax_")
            self.local = Path(self._temporary.name)
        else:
            self.local = Path(folder)

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
