"""Which files each task is read from: a position in the data is one in these files, in their order.

A file is known by its name without the folder, which may move, and by its size. The names are those
that the source has listed to be opened at all.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from switch_jax.data.configured_tasks import OpenedTasks
from switch_jax.data.sources import source_files, source_of
from switch_jax.errors import storage_error
from switch_jax.storage import file_sizes


class DataFile(NamedTuple):
    """A file of a task.

    Attributes:
      name: without the folder.
      skip, take: what is read of it, see `FileSlice`.
      size: in bytes.
    """

    name: str
    skip: int
    take: int
    size: int


class FilesOfTask(NamedTuple):
    """What a checkpoint holds of the files of a task; 0 files of a source that names none.

    Attributes:
      files: their number.
      size: bytes in all; None: an earlier version did not know it, as they were in a bucket.
      names, sizes: digests of the lists, in the order of the source.
    """

    files: int
    size: int | None
    names: str
    sizes: str

    def __str__(self) -> str:
        """As "127 files of 1,270 bytes"."""
        noun = "file" if self.files == 1 else "files"
        return f"{self.files:,} {noun}" + ("" if self.size is None else f" of {self.size:,} bytes")


def data_files(opened: OpenedTasks) -> dict[str, list[DataFile]]:
    """The files of the split of each task, in the order of its source.

    Raises:
      UserError: a file is not there, or cannot be reached.
    """
    split, found = opened.config.split, {}
    for task in opened:
        source = source_of(task, split, opened.config.use_cached_tasks)
        files = [file for file in source_files(source, split).files if file.path]
        try:
            sizes = file_sizes([file.path for file in files])
        except OSError as error:
            raise storage_error(
                f"{task.name}: {error.filename} cannot be read: {error.strerror}", error
            ) from error
        found[task.name] = [
            DataFile(os.path.basename(path), skip, take, size)
            for (path, skip, take), size in zip(files, sizes, strict=True)
        ]
    return found


def summary(files: Sequence[DataFile]) -> FilesOfTask:
    """Of the files of a task."""
    return FilesOfTask(
        len(files),
        sum(file.size for file in files),
        _digest([(file.name, file.skip, file.take) for file in files]),
        _digest([file.size for file in files]),
    )


def _digest(values: Sequence[Any]) -> str:
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=8).hexdigest()


def changed_files(
    before: Mapping[str, FilesOfTask], now: Mapping[str, FilesOfTask]
) -> dict[str, str]:
    """What has changed, by task, as "had 127 files, and has 128 files"; of tasks in both."""
    return {
        task: f"had {before[task]}, and has {_other(before[task], files)}"
        for task, files in now.items()
        if task in before and _differ(before[task], files)
    }


def _differ(one: FilesOfTask, other: FilesOfTask) -> bool:
    known = None not in (one.size, other.size)
    return one.names != other.names or (known and one.sizes != other.sizes)


def _other(before: FilesOfTask, now: FilesOfTask) -> str:
    if str(before) != str(now):
        return str(now)
    return f"{now} with other {'names' if before.names != now.names else 'sizes'}"
