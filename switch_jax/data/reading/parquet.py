"""Reading of Parquet files: a chunk is some rows of a row group, given to TensorFlow by Arrow.

A row group can only be read as a whole: each block that has some of its rows reads it, up to 32
times in an epoch, and as often for each stream that shares its file.
"""

import contextlib
import errno
import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from fsspec.spec import AbstractBufferedFile

from switch_jax.data.reading import file_chunks
from switch_jax.data.reading.file_chunks import (
    MIN_CHUNKS_PER_PART,
    Chunks,
    FileFormat,
    FileSlice,
    chunks_per_block,
)
from switch_jax.data.reading.read_ahead import run_concurrently
from switch_jax.storage import explain_read_errors, file_sizes, read_range
from switch_jax.utils.errors import UserError
from switch_jax.utils.tensorflow_setup import seqio, tf

_MAX_CUTS = 32  # of a row group, unless many parts share it
_MAX_ROW_GROUP = 256 * 2**20  # bytes of the columns that are read
_BATCH = 1024  # rows that are decoded at a time
_READING = threading.BoundedSemaphore(8)  # row groups that are in memory at a time


class ParquetDataSource(seqio.FileDataSource):
    """A source of the rows of Parquet files: an example has text, numbers and booleans by column.

    The rows are shuffled as a whole and resumed exactly, as lines of text are.
    """

    def __init__(
        self,
        split_to_filepattern: Mapping[str, str | Sequence[str]],
        columns: Sequence[str] | None = None,
        num_input_examples: Mapping[str, int] | None = None,
    ) -> None:
        """Reads nothing. Raises UserError where `columns` is a single name; None: all are read.

        Files, or patterns of them, are on a disk or in a bucket. `num_input_examples` are the rows
        of each split, which mixing rates may need.
        """
        if isinstance(columns, str):
            raise UserError(f"columns={columns!r} is no list: write columns=[{columns!r}]")
        super().__init__(self._read_file, split_to_filepattern, num_input_examples)
        self._columns = columns

    def format(self, split: str) -> "Parquet":
        """The format in which the files of a split are read."""
        return Parquet(self.list_shards(split)[0], self._columns)

    def _read_file(self, path: tf.Tensor) -> tf.data.Dataset:
        """The rows of a file in their order, for seqio."""
        format = self.format(next(iter(self.splits)))
        contents = tf.data.Dataset.from_generator(
            lambda path: format.contents(path.decode()),
            args=(path,),
            output_signature=tf.TensorSpec([], tf.string),
        )
        return contents.flat_map(format.examples)


class ParquetFile(NamedTuple):
    """A file that was opened."""

    path: str
    size: int  # in bytes
    metadata: Any  # pyarrow's, from the end of the file
    schema: Any  # of the columns that are read, as they are converted


class Parquet(FileFormat):
    """Some columns of Parquet files."""

    def __init__(self, first: str, columns: Sequence[str] | None) -> None:
        """Reads the end of `first`, whose columns all files must have; `columns`: None for all."""
        self._first, self._columns = first, columns
        # Not while TensorFlow traces `examples`, which would hide the message of an error.
        with explain_read_errors(first):
            (size,) = file_sizes([first])
            self._schema = self._open(first, size).schema
            self._columns = self._schema.names

    def read(self, path: tf.Tensor) -> tf.data.Dataset:
        """The examples of a file that holds chunks."""
        return self.examples(tf.io.read_file(path))

    def examples(self, content: tf.Tensor) -> tf.data.Dataset:
        """The examples of chunks, one after the other."""
        schema = self._schema

        def columns(content: bytes) -> list[np.ndarray]:
            import pyarrow as pa

            tables, buffer = [schema.empty_table()], pa.BufferReader(content)
            while buffer.tell() < buffer.size():
                tables.append(pa.ipc.open_stream(buffer).read_all())
            return [column.to_numpy() for column in pa.concat_tables(tables).columns]

        types = [tf.as_dtype(type.to_pandas_dtype()) for type in schema.types]
        found = tf.numpy_function(columns, [content], types)
        found = [tf.ensure_shape(column, [None]) for column in found]
        return tf.data.Dataset.from_tensor_slices(dict(zip(schema.names, found, strict=True)))

    def cut(self, files: Sequence[FileSlice], num_parts: int) -> Chunks:
        paths = [file.path for file in files]
        sizes = zip(paths, file_sizes(paths), strict=True)
        opened = run_concurrently([functools.partial(self._open, *file) for file in sizes])
        for file in opened:
            if file.schema != self._schema:
                raise UserError(
                    f"{file.path} has other columns than {self._first}: {_in_words(file.schema)}, "
                    f"and not {_in_words(self._schema)}"
                )
        return ParquetChunks(opened, num_parts)

    def _open(self, path: str, size: int) -> ParquetFile:
        """Reads the end of a file; OSError: it is no Parquet file, UserError: it does not fit."""
        import pyarrow as pa

        with _errors_of(path):
            file = _pyarrow_file(path, size)
        found = file.schema_arrow
        names, fields = self._columns or found.names, []
        for name in names:
            if (count := found.names.count(name)) != 1:
                raise UserError(
                    f"{path} has {count or 'no'} columns named {name!r}: its columns are "
                    f"{', '.join(found.names)}"
                )
            fields.append(pa.field(name, _converted(found.field(name).type, name, path)))
        for index in range(file.num_row_groups):
            _check_size(path, index, _num_bytes(file.metadata.row_group(index), names))
        return ParquetFile(path, size, file.metadata, pa.schema(fields))


def _num_bytes(group: Any, names: Sequence[str]) -> int:
    """Bytes of some columns of a row group, uncompressed; in memory repeated text takes more."""
    columns = map(group.column, range(group.num_columns))
    return sum(c.total_uncompressed_size for c in columns if c.path_in_schema in names)


def _check_size(path: str, group: int, size: int) -> None:
    """Raises UserError for a row group too large to be read, in the file or, then, in memory."""
    if size > _MAX_ROW_GROUP:
        raise UserError(
            f"{path}: its row group {group} has more than {_MAX_ROW_GROUP:,} bytes, too many to be "
            "read at once: write it with row_group_size=1000 or so"
        )


def _converted(type: Any, name: str, path: str) -> Any:
    """The type of Arrow to which a column is converted."""
    import pyarrow as pa

    if pa.types.is_dictionary(type):  # a categorical
        return _converted(type.value_type, name, path)
    for applies, converted in (
        (_is_text, pa.large_binary()),
        (pa.types.is_integer, pa.int64()),
        (pa.types.is_floating, pa.float64()),
        (pa.types.is_boolean, pa.bool_()),
    ):
        if applies(type):
            return converted
    raise UserError(
        f"{path}: the column {name!r} has the type {type}; only text, numbers and booleans "
        "can be read: name such columns in columns="
    )


def _is_text(type: Any) -> bool:
    return str(type).removeprefix("large_").removesuffix("_view") in ("string", "binary")


def _in_words(schema: Any) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


class _Rows(NamedTuple):
    """A range of rows of a row group, from `begin` up to `end`, which is not included."""

    file: int
    group: int
    begin: int
    end: int


class ParquetChunks(Chunks):
    """Chunks that are rows of row groups."""

    def __init__(self, files: Sequence[ParquetFile], num_parts: int) -> None:
        """Reads nothing; `num_parts`: see `FileFormat.cut`."""
        self._files = files
        num_groups = sum(file.metadata.num_row_groups for file in files)
        least = -(-MIN_CHUNKS_PER_PART * num_parts // max(num_groups, 1))
        self._chunks: list[_Rows] = []
        total = 0
        for number, file in enumerate(files):
            for index in range(file.metadata.num_row_groups):
                group = file.metadata.row_group(index)
                total += (size := _num_bytes(group, file.schema.names))
                by_size = min(-(-size // file_chunks.MAX_CHUNK_BYTES), _MAX_CUTS)
                cuts = min(max(by_size, least), group.num_rows)
                bounds = np.linspace(0, group.num_rows, cuts + 1).astype(int).tolist()
                self._chunks += [_Rows(number, index, *ends) for ends in itertools.pairwise(bounds)]
        self._per_block = chunks_per_block(max(total // max(len(self), 1), 1))

    def __len__(self) -> int:
        return len(self._chunks)

    def reads(self, chunks: Sequence[int]) -> list[Callable[[], bytes]]:
        """A call for each row group, which reads all the chunks in it."""
        by_group: dict[tuple[int, int], list[_Rows]] = {}
        for rows in (self._chunks[chunk] for chunk in chunks):
            by_group.setdefault((rows.file, rows.group), []).append(rows)
        return [functools.partial(self._read, rows) for rows in by_group.values()]

    def _read(self, rows: Sequence[_Rows]) -> bytes:
        """Some rows of one row group as an Arrow stream."""
        import pyarrow as pa

        file, group = self._files[rows[0].file], rows[0].group
        names = file.schema.names
        with _READING, _errors_of(file.path):
            opened = _pyarrow_file(file.path, file.size, file.metadata)
            batches, size = [], 0
            for batch in opened.iter_batches(_BATCH, [group], names, use_threads=False):
                batches.append(_as_read(batch.select(names), file.schema, group))
                size += batches[-1].nbytes
                _check_size(file.path, group, size)
            table = pa.Table.from_batches(batches)
            table = pa.concat_tables([table.slice(r.begin, r.end - r.begin) for r in rows])
            for name, column in zip(names, table.columns, strict=True):
                if column.null_count:
                    raise pa.ArrowInvalid(f"row group {group} has rows without {name!r}")
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, file.schema) as stream:
                stream.write_table(table)
        return sink.getvalue().to_pybytes()


def _as_read(batch: Any, schema: Any, group: int) -> Any:
    """Casts rows of a row group to the types of `schema`; ArrowInvalid if text is not UTF-8."""
    import pyarrow as pa

    text = [
        field.with_type(pa.large_string()) if field.type == pa.large_binary() else field
        for field in schema
    ]
    try:
        batch.validate(full=True)  # strings; those that are bytes in the file by the cast
        return batch.cast(pa.schema(text)).cast(schema)
    except pa.ArrowInvalid as error:
        raise pa.ArrowInvalid(f"row group {group}: {error}") from error


def _pyarrow_file(path: str, size: int, metadata: Any = None) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    file = pa.PythonFile(_Ranges(None, path, size=size, cache_type="none"), mode="r")
    return parquet.ParquetFile(file, metadata=metadata, pre_buffer=True)


@contextlib.contextmanager
def _errors_of(path: str) -> Iterator[None]:
    """Errors of pyarrow are OSErrors with the path; those of reading bytes stay as they are."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.filename:
            raise
        reason = str(error).strip().split("\n")[0].rstrip(".")
        if "footer" in reason:  # which pyarrow misses
            reason = "it was cut off, or it is no Parquet file: its end is not that of one"
        raise OSError(errno.EBADMSG, reason, path) from error


class _Ranges(AbstractBufferedFile):
    """A file that is read by byte ranges, as they are asked for."""

    def _fetch_range(self, begin: int, end: int) -> bytes:
        return read_range(self.path, begin, end)
