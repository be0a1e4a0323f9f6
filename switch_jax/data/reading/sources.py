"""The data source of a task: its files, and how they are read."""

import errno
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from switch_jax.data.reading import seqio_internals
from switch_jax.data.reading.compression import checked_local_copies
from switch_jax.data.reading.file_chunks import FileFormat, FileSlice, TextLines, TFRecords
from switch_jax.data.reading.parquet import ParquetDataSource
from switch_jax.storage import file_sizes, read_range, relist, resolved, storage_path
from switch_jax.tasks.c4_files import C4Files
from switch_jax.utils.errors import UserError, storage_error
from switch_jax.utils.tensorflow_setup import seqio, tf, tfds

# The most bytes of a source without files that is kept in memory, and those of an array's header.
_MAX_KEPT_BYTES, _BYTES_BESIDE = 2 * 2**20, 100
# What a clone of a repository has in place of a file of git-lfs, and its most bytes.
_POINTER, _MAX_POINTER_BYTES = b"version https://git-lfs", 200
_RAM_FILE_NUMBERS = itertools.count()

# From the path of a file, string [], to all its examples, in their order.
Reader = Callable[[tf.Tensor], tf.data.Dataset]
Label = TypeVar("Label")


def data_locations() -> dict[str, Any]:
    """Returns the folders where seqio looks for data, as JSON: what is read depends on them."""

    def absolute(folder: str, what: str) -> str:
        return str(resolved(storage_path(folder, what)))

    tfds_dir = seqio_internals.tfds_data_dir() or os.environ.get("TFDS_DATA_DIR")
    return {
        "tfds_data_dir": tfds_dir and absolute(tfds_dir, "TFDS_DATA_DIR"),
        "seqio_additional_cache_dirs": [
            absolute(folder, "a folder of cached tasks") for folder in seqio.get_global_cache_dirs()
        ],
    }


def data_source(task: seqio.Task, split: str, use_cached: bool) -> seqio.DataSource:
    """Returns the task's cache or its source, chosen as in `seqio.Task.get_dataset`."""
    if use_cached and task.supports_caching:
        return seqio_internals.cached_source(task, split)
    return task.source


def open_source(source: seqio.DataSource, split: str, seed: int | None = None) -> tf.data.Dataset:
    """The examples in the order of the source.

    Files are looked at, those that can be cut before TensorFlow reads them: SentencePiece would
    read a question mark for each byte that is not UTF-8, and a wrong length of a TFRecord could end
    the process.
    """
    found = source_files(source, split)
    if found.files and found.files[0].path:
        return _open_in_order(found, seqio_internals.files_at_once(source, split))
    return source.get_dataset(split, shuffle=False, seed=seed)


class SourceFiles(NamedTuple):
    """A split's files in order, how they are read, and their format; None: they cannot be cut."""

    files: Sequence[FileSlice]
    read: Reader
    format: FileFormat | None

    def readable(self, path: str) -> Iterator[str]:
        """Yields a file as paths for `read`; one that can be cut in blocks of whole examples."""
        if self.format is None:
            with checked_local_copies([path]) as here:
                yield from here
            return
        contents = ((None, content) for content in self.format.contents(path))
        yield from (ram_file for _, ram_file in as_ram_files(contents))


def as_ram_files(contents: Iterable[tuple[Label, bytes]]) -> Iterator[tuple[Label, str]]:
    """Yields each label with the path of a file in TensorFlow's memory that has its content."""
    path = f"ram://switch_jax/{next(_RAM_FILE_NUMBERS)}"
    for label, content in contents:
        with tf.io.gfile.GFile(path, "wb") as file:
            file.write(content)
        try:
            yield label, path
        finally:  # its examples were read, or reading was stopped
            tf.io.gfile.remove(path)


def _open_in_order(found: SourceFiles, files_at_once: tuple[int, int]) -> tf.data.Dataset:
    """The examples of files, some of each of several in turn as in seqio and TFDS."""

    def read(path: tf.Tensor, skip: tf.Tensor, take: tf.Tensor) -> tf.data.Dataset:
        readable = tf.data.Dataset.from_generator(
            lambda path: found.readable(path.decode()),
            args=(path,),
            output_signature=tf.TensorSpec([], tf.string),
        )
        return readable.flat_map(found.read).skip(skip).take(take)

    paths, skips, takes = map(np.asarray, zip(*found.files, strict=True))
    files = tf.data.Dataset.from_tensor_slices((paths, skips.astype(int), takes.astype(int)))
    return files.interleave(read, *files_at_once, num_parallel_calls=tf.data.AUTOTUNE)


def source_files(source: seqio.DataSource, split: str) -> SourceFiles:
    """The files of a split, which together give the examples of `source.get_dataset`.

    Files of plain lines or TFRecords can be cut: those of seqio's `TextLineDataSource`,
    `TFExampleDataSource`, `ProtoDataSource` and caches, C4's JSON that is not gzipped, and those
    that TFDS has prepared.
    """
    source_type = type(source)
    if source_type.get_dataset is seqio.FileDataSource.get_dataset:
        files = [FileSlice(path) for path in source.list_shards(split)]
        read, header = seqio_internals.file_reader(source)
        if source_type is seqio.TextLineDataSource:
            files = [file._replace(skip=header) for file in files]
            return SourceFiles(files, tf.data.TextLineDataset, TextLines())
        if source_type is ParquetDataSource and files:
            format = source.format(split)
            return SourceFiles(files, format.read, format)
        if source_type is C4Files:
            is_plain = not any(file.path.endswith(".gz") for file in files)
            return SourceFiles(files, read, TextLines() if is_plain else None)
        examples = source_type in (seqio.TFExampleDataSource, seqio.ProtoDataSource)
        records = examples and source.reader_cls is tf.data.TFRecordDataset
        records = records or seqio_internals.is_cache(source)
        return SourceFiles(files, read, TFRecords() if records else None)
    if source_type is seqio.TfdsDataSource:
        loader = source.tfds_dataset
        builder, decoders = seqio_internals.tfds_builder(loader, split)
        info = builder.info
        whole = not isinstance(decoders, tfds.decode.PartialDecoding)
        if whole and info.file_format == tfds.core.FileFormat.TFRECORD:
            try:
                shards = loader.files(split)
            except ValueError as error:  # it has several configs, and the name has none
                raise UserError(f"the data set {loader.name!r} of TFDS: {error}") from error
            takes = (-1 if f.skip + f.take == f.examples_in_shard else f.take for f in shards)
            files = [FileSlice(f.filename, f.skip, n) for f, n in zip(shards, takes, strict=True)]

            def read_records(path: tf.Tensor) -> tf.data.Dataset:
                return tf.data.TFRecordDataset(path).map(
                    lambda record: info.features.deserialize_example(record, decoders=decoders)
                )

            return SourceFiles(files, read_records, TFRecords())

    def read_all(path: tf.Tensor) -> tf.data.Dataset:
        with tf.init_scope():  # outside the graph from which this is called
            return _kept_if_small(open_source(source, split))

    return SourceFiles([FileSlice("")], read_all, None)


def check_not_cut_off(task: seqio.Task, split: str) -> None:
    """Raises UserError where a compressed file of a split's source was cut off; opens all."""
    found = source_files(task.source, split)
    if found.format is not None:
        return
    for file in found.files:
        try:
            with checked_local_copies([file.path]):
                pass
        except OSError as error:
            where = f"{task.name}, split {split!r}: {error.filename}"
            raise storage_error(f"{where}: {error.strerror}", error) from error


def _kept_if_small(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the data set, from memory where it is small.

    Each stream reads all examples of such a source and keeps its share, so without that Python code
    might make each example once for every stream, in every epoch.
    """
    kept, size = dataset.cache(), 0
    for example in kept.as_numpy_iterator():
        arrays = map(np.asarray, tf.nest.flatten(example))
        for x in arrays:
            size += _BYTES_BESIDE + (sum(map(len, x.flat)) if x.dtype == object else x.nbytes)
        if size > _MAX_KEPT_BYTES:
            return dataset
    return kept


def files_digest(task: seqio.Task, split: str, use_cached: bool) -> str:
    """A digest of the files of a task in their order: a position in the data is one in these.

    They may move to another folder: their names without it count, their sizes, and what is read.
    Raises UserError: a file is missing or no ordinary one, or is a pointer of git-lfs, or a bucket
    may not be listed; TransientError: the storage failed.
    """
    where = f"{task.name}, split {split!r}"
    try:
        source = data_source(task, split, use_cached)
        if isinstance(source, seqio.FileDataSource):
            patterns = seqio_internals.file_patterns(source, split)
            relist(patterns)
            seqio_internals.list_anew()
            if not source.list_shards(split):
                raise UserError(f"{where}: there is no file {', '.join(map(str, patterns))}")
        files = [file for file in source_files(source, split).files if file.path]
        sizes = file_sizes([file.path for file in files])
        _refuse_pointers({file.path: size for file, size in zip(files, sizes, strict=True)}, where)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise UserError(f"{where}: there is no file {error.filename}") from error
        if error.errno == errno.EISDIR:
            raise UserError(
                f"{where}: {error.filename} is a folder, a pipe or a device: write what is to be "
                "read to an ordinary file"
            ) from error
        raise storage_error(
            f"{where}: {error.filename} cannot be read: {error.strerror}", error
        ) from error
    found = [
        (os.path.basename(path), skip, take, size)
        for (path, skip, take), size in zip(files, sizes, strict=True)
    ]
    return hashlib.blake2b(json.dumps(found).encode(), digest_size=8).hexdigest()


def _refuse_pointers(sizes: dict[str, int], where: str) -> None:
    """Raises UserError where a file only says where git-lfs has its content."""
    for path, size in sizes.items():
        if 0 < size <= _MAX_POINTER_BYTES and read_range(path, 0, size).startswith(_POINTER):
            raise UserError(
                f"{where}: {path} is a pointer of git-lfs, and not the file itself: fetch the file "
                "by `git lfs pull`, or remove it and all like it"
            )
