"""What the source of a task holds, and where exactly it cannot be read."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import seqio
import tensorflow as tf

from switch_jax.errors import UserError, is_transient, storage_error

_TENSORFLOW_S = re.compile(
    r"\{\{function_node [^}]*\}\}|Error in user-defined function passed to .* with iterator: \S+: "
)


def source_of(task: seqio.Task, split: str, use_cached: bool) -> seqio.DataSource:
    """The task's source or cache, as `seqio.Task.get_dataset` chooses; seqio has no way to it."""
    if use_cached and task.supports_caching:
        return task._get_cached_source(split)
    return task.source


def open_source(
    source: seqio.DataSource,
    split: str,
    shard: seqio.ShardInfo | None = None,
    seed: int | None = None,
) -> tf.data.Dataset:
    """The examples in their order; a line of text that is not UTF-8 is an error of TensorFlow.

    SentencePiece would read such a line with a question mark for each byte that it does not know.
    """
    dataset = source.get_dataset(split, shuffle=False, seed=seed, shard_info=shard)
    return dataset.map(_in_utf_8) if isinstance(source, seqio.TextLineDataSource) else dataset


def _in_utf_8(line: tf.Tensor) -> tf.Tensor:
    return tf.strings.unicode_transcode(line, "UTF-8", "UTF-8", errors="strict")


def check_there(task: seqio.Task, split: str, use_cached: bool) -> None:
    """Checks that a task has files, and the first of them; traces nothing, and reads nothing.

    Raises:
      UserError: there is none.
    """
    source = source_of(task, split, use_cached)
    files = source.list_shards(split)
    if isinstance(source, seqio.FileDataSource) and not (files and tf.io.gfile.exists(files[0])):
        missing = files[0] if files else source._split_to_filepattern[split]
        raise UserError(f"{task.name}, split {split!r}: there is no file {missing}")


def elements(
    dataset: tf.data.Dataset, task: seqio.Task, split: str, use_cached: bool, group: slice
) -> Iterator[Any]:
    """The elements of what is made of a source, as NumPy arrays.

    Args:
      dataset: made of the task's source or cache.
      task, split, use_cached: whose.
      group: which of the source's files.

    Raises:
      UserError: the source cannot be read, with file and place where they are found; or a step of
        the task fails.
      TransientError: the storage failed.
    """
    iterator = dataset.as_numpy_iterator()
    while True:
        try:
            element = next(iterator)
        except StopIteration:
            return
        except tf.errors.OpError as error:
            reason = _reason(error, source_of(task, split, use_cached), split, group)
            raise storage_error(f"{task.name}, split {split!r}: {reason}", error) from error
        yield element  # out of the `try`, or what the caller raises would be caught


def _reason(error: tf.errors.OpError, source: seqio.DataSource, split: str, group: slice) -> str:
    if is_transient(error):  # what failed once may be read without fault now
        return f"cannot be read: {_words(error)}"
    place = _damaged_place(source, source.list_shards(split)[group])
    return place or f"a step of the task fails: {_words(error)}"


def _damaged_place(source: seqio.DataSource, files: list[str]) -> str | None:
    """Reads the files one by one, and tells the first that is damaged; None: none is."""
    read = _reader_of(source)
    if read is None:
        return None
    for file in files:
        number = 0
        try:
            for _ in read(file).as_numpy_iterator():
                number += 1
        except tf.errors.OpError as error:
            return f"{file}, after {number} examples: {_words(error)}"
    return None


def _reader_of(source: seqio.DataSource) -> Callable[[str], tf.data.Dataset] | None:
    """From one of the source's files to its examples; None: it has no files, or none we know of."""
    if isinstance(source, seqio.TextLineDataSource):
        return lambda file: source._reader(file).map(_in_utf_8)
    if isinstance(source, seqio.FileDataSource):
        return source._reader
    return tf.data.TFRecordDataset if isinstance(source, seqio.TfdsDataSource) else None


def _words(error: tf.errors.OpError) -> str:
    """TensorFlow's message without the names of its own operations."""
    words = _TENSORFLOW_S.sub("", error.message).strip().split("\n")[0].split("[Op:")[0].strip()
    return "not UTF-8" if words.startswith("Invalid formatting on input") else words


def no_example(name: str, split: str, lengths: dict[str, int]) -> str:
    return (
        f"{name} gives no example of its split {split!r} at task_feature_lengths {lengths}: the "
        "split is empty, or the task's preprocessors drop every example at these lengths; write "
        "smaller ones"
    )
