"""Notices when data files change while a run reads them."""

import sys

from tqdm import tqdm

from switch_jax.data.reading import tensorflow_message
from switch_jax.data.tensorflow_setup import tf
from switch_jax.errors import UserError, storage_error


class FileWatch:
    """Remembers the size and the modification time that files had when a run first read them."""

    def __init__(self, task: str) -> None:
        """`task`: name of the task that reads the files, for messages."""
        self._task = task
        self._first_seen: dict[str, tuple[int, int]] = {}  # bytes, modification time
        self._warned: set[str] = set()

    def size(self, path: str) -> int:
        """The size of a file in bytes, which must be the same in every call.

        A file that was rewritten with the same size is reported once on standard error.

        Raises:
          UserError: the file is gone or its size has changed, so its examples are no longer those
            with which the run was started.
          TransientError: the storage failed.
        """
        try:
            now = tf.io.gfile.stat(path)
        except tf.errors.OpError as error:
            gone = isinstance(error, tf.errors.NotFoundError) and path in self._first_seen
            reason = (
                "no longer exists, but did when the run began"
                if gone
                else f"cannot be read: {tensorflow_message(error)}"
            )
            raise storage_error(f"{self._task}: {path} {reason}", error) from error
        size, modified = self._first_seen.setdefault(path, (now.length, now.mtime_nsec))
        if now.length != size:
            raise UserError(
                f"{self._task}: {path} has changed during the run: it had {size} bytes, and now "
                f"has {now.length}; restore it, and start again"
            )
        if now.mtime_nsec != modified and path not in self._warned:
            self._warned.add(path)
            tqdm.write(  # above a progress bar, if there is one
                f"{self._task}: {path} was rewritten during the run, with the same size: the run "
                "continues with its new content",
                file=sys.stderr,
            )
        return size
