"""What the source of a task holds, how its files are read, and where exactly they cannot be."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from switch_jax.data import seqio_private
from switch_jax.data.pieces import Cut, Lines, Records
from switch_jax.errors import UserError, is_transient, storage_error

_TENSORFLOW_S = re.compile(
    r"\{\{function_node [^}]*\}\}|Error in user-defined function passed to .* with iterator: \S+: "
)


def source_of(task: seqio.Task, split: str, use_cached: bool) -> seqio.DataSource:
    """The task's source or cache, as `seqio.Task.get_dataset` chooses; seqio has no way to it."""
    if use_cached and task.supports_caching:
        return seqio_private.cached_source(task, split)
    return task.source


def open_source(source: seqio.DataSource, split: str, seed: int | None = None) -> tf.data.Dataset:
    """The examples in their order; a line of text that is not UTF-8 is an error of TensorFlow.

    SentencePiece would read such a line with a question mark for each byte that it does not know.
    """
    dataset = source.get_dataset(split, shuffle=False, seed=seed)
    return dataset.map(_in_utf_8) if isinstance(source, seqio.TextLineDataSource) else dataset


def _in_utf_8(line: tf.Tensor) -> tf.Tensor:
    return tf.strings.unicode_transcode(line, "UTF-8", "UTF-8", errors="strict")


class File(NamedTuple):
    """A file of a split: of its lines or records `skip` are left out, and then `take` are read.

    `path` is "" where the source has no files that we know of; `take` is -1 for all.
    """

    path: str
    skip: int = 0
    take: int = -1


class Readable(NamedTuple):
    """The files of a split, and how they are read.

    Attributes:
      files: in the order of the source.
      examples: from the path of a file, string [], to all its examples in their order.
      cut: how a file is cut into pieces that `examples` reads too; None: it is read as a whole.
    """

    files: Sequence[File]
    examples: Callable[[tf.Tensor], tf.data.Dataset]
    cut: Cut | None


def readable(source: seqio.DataSource, split: str) -> Readable:
    """How a split of a source is read, the same as `source.get_dataset` does it file by file.

    Pieces of files are read where they lie in a file system, and are known to hold plain lines or
    TFRecords: those of seqio's `TextLineDataSource`, `TFExampleDataSource`, `ProtoDataSource` and
    caches, and of TFDS.
    """
    found = _readable(source, split)
    return found._replace(cut=None) if any("://" in file.path for file in found.files) else found


def _readable(source: seqio.DataSource, split: str) -> Readable:
    kind = type(source)
    if kind is seqio.TextLineDataSource:
        header = seqio_private.header_lines(source)
        files = [File(path, header) for path in source.list_shards(split)]
        return Readable(files, _lines, Lines())
    if kind.get_dataset is seqio.FileDataSource.get_dataset:
        files = [File(path) for path in source.list_shards(split)]
        plain = getattr(source, "reader_cls", None) is tf.data.TFRecordDataset and kind in (
            seqio.TFExampleDataSource,
            seqio.ProtoDataSource,
        )
        records = plain or seqio_private.is_cache(source)
        return Readable(files, seqio_private.reader(source), Records() if records else None)
    if kind is seqio.TfdsDataSource:
        loader = source.tfds_dataset
        info = seqio_private.tfds_builder(loader, split).info
        decoders = seqio_private.tfds_decoders(loader)
        known = not isinstance(decoders, tfds.decode.PartialDecoding)
        if known and info.file_format == tfds.core.FileFormat.TFRECORD:
            files = [File(f.filename, f.skip, _taken(f)) for f in loader.files(split)]

            def examples(path: tf.Tensor) -> tf.data.Dataset:
                return tf.data.TFRecordDataset(path).map(
                    lambda record: info.features.deserialize_example(record, decoders=decoders)
                )

            return Readable(files, examples, Records())

    def all_examples(path: tf.Tensor) -> tf.data.Dataset:
        with tf.init_scope():  # out of the graph that asks for it
            return open_source(source, split)

    return Readable([File("")], all_examples, None)


def _lines(path: tf.Tensor) -> tf.data.Dataset:
    return tf.data.TextLineDataset(path).map(_in_utf_8)


def _taken(file: Any) -> int:
    return -1 if file.skip + file.take == file.examples_in_shard else file.take


class FileWatch:
    """Notices when files are changed while a run reads them."""

    def __init__(self, name: str) -> None:
        """`name`: of the task that reads them, for messages."""
        self._name, self._seen, self._warned = name, dict[str, tuple[int, int]](), set[str]()

    def size(self, path: str) -> int:
        """The file's bytes, which are those of its first look.

        Raises:
          UserError: it is gone, or has another size than at the first look: its examples are not
            those that the run was started with.
          TransientError: the storage failed.
        """
        try:
            now = tf.io.gfile.stat(path)
        except tf.errors.OpError as error:
            gone = isinstance(error, tf.errors.NotFoundError) and path in self._seen
            raise storage_error(
                f"{self._name}: {path} {'is gone' if gone else 'cannot be read'}"
                f"{': ' + _words(error) if not gone else ', which was there when the run began'}",
                error,
            ) from error
        size, changed = self._seen.setdefault(path, (now.length, now.mtime_nsec))
        if now.length != size:
            raise UserError(
                f"{self._name}: {path} was changed while it was read: it had {size} bytes, and now "
                f"has {now.length}; put it back as it was, and start again"
            )
        if now.mtime_nsec != changed and path not in self._warned:
            self._warned.add(path)
            print(
                f"{self._name}: {path} was written anew while it was read, with the same size: the "
                "run goes on with what it holds now",
                file=sys.stderr,
                flush=True,
            )
        return size


def check_there(task: seqio.Task, split: str, use_cached: bool) -> None:
    """Checks that a task has files, and the first of them; traces nothing, and reads nothing.

    Raises:
      UserError: there is none.
    """
    source = source_of(task, split, use_cached)
    files = source.list_shards(split)
    if isinstance(source, seqio.FileDataSource) and not (files and tf.io.gfile.exists(files[0])):
        missing = files[0] if files else seqio_private.file_pattern(source, split)
        raise UserError(f"{task.name}, split {split!r}: there is no file {missing}")


def elements(
    dataset: tf.data.Dataset,
    task: seqio.Task,
    split: str,
    use_cached: bool,
    files: Callable[[], Sequence[str]] | None = None,
) -> Iterator[Any]:
    """The elements of what is made of a source, as NumPy arrays.

    Args:
      dataset: made of the task's source or cache.
      task, split, use_cached: whose.
      files: those that are read when it fails; None: all.

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
            source = source_of(task, split, use_cached)
            reason = _reason(error, readable(source, split), files() if files else None)
            raise storage_error(f"{task.name}, split {split!r}: {reason}", error) from error
        yield element  # out of the `try`, or what the caller raises would be caught


def _reason(error: tf.errors.OpError, found: Readable, files: Sequence[str] | None) -> str:
    if is_transient(error):  # what failed once may be read without fault now
        return f"cannot be read: {_words(error)}"
    paths = [file.path for file in found.files if file.path] if files is None else files
    place = _damaged_place(paths, found.examples)
    return place or f"a step of the task fails: {_words(error)}"


def _damaged_place(
    files: Sequence[str], examples: Callable[[tf.Tensor], tf.data.Dataset]
) -> str | None:
    """Reads the files one by one, and tells the first that is damaged; None: none is."""
    for file in files:
        number = 0
        try:
            for _ in examples(tf.constant(file)).as_numpy_iterator():
                number += 1
        except tf.errors.OpError as error:
            return f"{file}, after {number} examples: {_words(error)}"
    return None


def _words(error: tf.errors.OpError) -> str:
    """TensorFlow's message without the names of its own operations."""
    words = _TENSORFLOW_S.sub("", error.message).strip().split("\n")[0].split("[Op:")[0].strip()
    return "not UTF-8" if words.startswith("Invalid formatting on input") else words


def no_example(name: str, split: str, lengths: dict[str, int]) -> str:
    return (
        f"{name} gives no example of its split {split!r} at task_feature_lengths {lengths}: the "
        "split is empty, or the task's preprocessors drop every example at these lengths (write "
        "smaller ones) or leave it without a token"
    )
