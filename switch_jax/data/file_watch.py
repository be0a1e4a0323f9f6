"""Notices when data files change while a run reads them."""

import errno
from collections.abc import Hashable, Sequence

from switch_jax.errors import UserError, storage_error
from switch_jax.storage import file_at, file_sizes, read_range
from switch_jax.terminal import say


class FileWatch:
    """Remembers the sizes and the versions that files had when a run first read them.

    What is read comes with the version of its file. So a change is noticed without a look at the
    file for each read, which would be one more request to a bucket.
    """

    def __init__(self, task: str) -> None:
        """`task`: name of the task that reads the files, for messages."""
        self._task = task
        self._sizes: dict[str, int] = {}
        self._versions: dict[str, Hashable] = {}
        self._warned: set[str] = set()

    def sizes(self, paths: Sequence[str]) -> list[int]:
        """The sizes of files in bytes, as the run first saw them.

        Raises:
          UserError: one cannot be read, or was removed since.
          TransientError: the storage failed.
        """
        try:
            for path, size in zip(paths, file_sizes(paths), strict=True):
                self._sizes.setdefault(path, size)
        except OSError as error:
            raise self._unreadable(error) from error
        return [self._sizes[path] for path in paths]

    def read(self, path: str, begin: int, end: int) -> bytes:
        """The bytes of a file from `begin` up to `end`, which is not included.

        A file that was rewritten with the same size is reported once on standard error.

        Args:
          path: one that was given to `sizes`.
          begin, end: begin < end.

        Raises:
          UserError: the file is gone or its size has changed, so its examples are no longer those
            with which the run was started.
          OSError: the file cannot be read.
        """
        try:
            data, version = read_range(path, begin, end)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODATA):
                self._check_size(path)
            raise
        if self._is_new(path, version):
            self._check_size(path)
            self._report(path)
        return data

    def look(self, path: str) -> None:
        """Checks a file whose bytes are read elsewhere; a change is reported as in `read`.

        Raises:
          UserError, TransientError: as in `sizes` and `read`.
        """
        if self._is_new(path, self._check_size(path)):
            self._report(path)

    def _check_size(self, path: str) -> Hashable:
        """The version of a file now, after a check that it has its size of before."""
        try:
            found = file_at(path)
        except OSError as error:
            raise self._unreadable(error) from error
        before = self._sizes.setdefault(path, found.size)
        if found.size != before:
            raise UserError(
                f"{self._task}: {path} has changed during the run: it had {before} bytes, and now "
                f"has {found.size}; restore it, and start again"
            )
        return found.version

    def _is_new(self, path: str, version: Hashable) -> bool:
        before, self._versions[path] = self._versions.get(path, version), version
        return before != version

    def _report(self, path: str) -> None:
        if path not in self._warned:
            self._warned.add(path)
            say(
                f"{self._task}: {path} was rewritten during the run, with the same size: the run "
                "continues with its new content"
            )

    def _unreadable(self, error: OSError) -> UserError:
        gone = error.errno == errno.ENOENT and error.filename in self._sizes
        reason = (
            "no longer exists, but did when the run began"
            if gone
            else f"cannot be read: {error.strerror}"
        )
        return storage_error(f"{self._task}: {error.filename} {reason}", error)
