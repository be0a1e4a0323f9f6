"""Files of a bucket for programs that read or write disks alone."""

import contextlib
import functools
import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from etils import epath

from switch_jax.storage.appended import AppendedFile, appended_file
from switch_jax.storage.clients import file_system
from switch_jax.storage.entries import file_at
from switch_jax.storage.listing import file_sizes
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
    path = epath.Path(url)
    name = hashlib.sha256(repr((url, version)).encode()).hexdigest()[:16]
    target = Path(_folder_of_copies.name, name, path.name)
    target.parent.mkdir(exist_ok=True)
    file_system(path).get_file(url, str(target))
    return str(target)


def scratch_folder(folder: epath.Path) -> str:
    """Where a program may write what nobody needs later: the folder, or a temporary one instead of
    one in a bucket."""
    return tempfile.gettempdir() if in_bucket(folder) else str(folder)


@contextlib.contextmanager
def beginning_here(file: epath.Path, num_bytes: int) -> Iterator[str]:
    """Within, the path of a file on this machine; zeros stand for the rest of one in a bucket.

    Args:
      file: the file.
      num_bytes: how many bytes of a file in a bucket are read.

    Raises:
      OSError: it cannot be read.
    """
    url = str(file)
    if not in_bucket(file):
        yield url
        return
    with tempfile.NamedTemporaryFile(prefix="switch_jax_") as copy:
        size = file_at(url).size
        copy.write(read_range(url, 0, min(num_bytes, size)).data)
        copy.truncate(size)  # takes no room
        yield copy.name


@contextlib.contextmanager
def copies_here(files: Sequence[str]) -> Iterator[list[str]]:
    """Within, paths of files on this machine, of copies where they are in a bucket.

    Raises:
      OSError: one cannot be read; it has the file's name.
    """
    if not any(map(in_bucket, files)):
        yield list(files)
        return
    with tempfile.TemporaryDirectory(prefix="switch_jax_") as folder:

        def copy(number: int, file: str) -> str:
            target = Path(folder, str(number), file.rpartition("/")[2])
            target.parent.mkdir()
            (size,) = file_sizes([file])
            with target.open("wb") as copied:
                for begin in range(0, size, _READ):
                    copied.write(read_range(file, begin, min(begin + _READ, size)).data)
            return str(target)

        with ThreadPoolExecutor(_COPIES_AT_ONCE) as threads:
            copies = list(threads.map(copy, range(len(files)), files))
        yield copies


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
