"""Parquet files are read by row groups; what is wrong with one is said in one line."""

import numpy as np
import pyarrow as pa
import pytest
import seqio
from pyarrow import parquet

from switch_jax.data import parquet as ours
from switch_jax.data.file_chunks import FileSlice, read_bytes
from switch_jax.data.parquet import ParquetDataSource
from switch_jax.data.position import Cursor
from switch_jax.data.sources import open_source
from switch_jax.errors import UserError
from tests.data.number_tasks import FEATURES, task_examples
from tests.data.test_order import as_pair


def write(path, table, **options):
    with path.open("wb") as file:
        parquet.write_table(table, file, **options)


def test_rows_come_in_their_order_with_the_types_of_their_columns(storage):
    texts = [f"größe {n}" * (n % 7) for n in range(100)]
    table = pa.table(
        {
            "text": texts,
            "kind": pa.array([f"kind {n % 3}" for n in range(100)]).dictionary_encode(),
            "bytes": [bytes([n]) for n in range(100)],
            "number": pa.array(range(100), pa.int16()),
            "half": pa.array([n / 2 for n in range(100)], pa.float32()),
            "even": [n % 2 == 0 for n in range(100)],
            "list": [[n] for n in range(100)],
        }
    )
    write(storage / "0.parquet", table.slice(0, 40), row_group_size=7)
    write(storage / "1.parquet", table.slice(40), compression="zstd")
    columns = ["number", "text", "kind", "bytes", "half", "even"]
    source = ParquetDataSource({"train": str(storage / "?.parquet")}, columns)
    found = sorted(open_source(source, "train").as_numpy_iterator(), key=lambda row: row["number"])
    assert [list(row) for row in found] == 100 * [columns]
    for n, row in enumerate(found):
        expected = [n, texts[n].encode(), f"kind {n % 3}".encode(), bytes([n]), n / 2, n % 2 == 0]
        assert list(row.values()) == expected
    one = ParquetDataSource({"train": str(storage / "0.parquet")}, ["number"])
    for dataset in (open_source(one, "train"), one.get_dataset("train", shuffle=False)):
        assert [row["number"] for row in dataset.as_numpy_iterator()] == list(range(40))


def test_a_large_row_group_is_read_once_for_each_block(tmp_path):
    """32 chunks of 94 KB, five in a block: in all they read the file seven times."""
    table = pa.table({"text": [f"{n:03}" * 1000 for n in range(1000)]})
    write(tmp_path / "x.parquet", table, use_dictionary=False, compression="none")
    (size,) = ours.file_sizes([str(tmp_path / "x.parquet")])
    read = []

    def counted(path, begin, end):
        read.append(end - begin)
        return read_bytes(path, begin, end)

    format = ParquetDataSource({"train": str(tmp_path / "x.parquet")}).format("train")
    chunks = format.cut([FileSlice(str(tmp_path / "x.parquet"))], [size], 1, counted)
    blocks = chunks.blocks(np.random.default_rng(0).permutation(len(chunks)))
    assert (len(chunks), len(blocks)) == (32, 7)
    read.clear()
    contents = [b"".join(call() for call in chunks.reads(block)) for block in blocks]
    assert sum(read) == pytest.approx(7 * size, rel=0.01)
    assert max(map(len, contents)) < 2**19


@pytest.fixture
def first_example(tmp_path):
    """Reads the first example of a task of all Parquet files in the test's folder."""

    def read(columns=None):
        source = ParquetDataSource({"train": str(tmp_path / "*.parquet")}, columns)
        task = seqio.TaskRegistry.add(
            "parquet", source=source, preprocessors=[as_pair], output_features=FEATURES
        )
        return next(task_examples(task).read(0, Cursor()))

    yield read
    seqio.TaskRegistry.remove("parquet")


NUMBERS = pa.table({"number": [1, 2]})


@pytest.mark.parametrize(
    ("table", "columns", "message"),
    [
        (pa.table({"numbers": [1]}), ["number"], "has no column 'number': its columns are numbers"),
        (
            pa.table({"number": [[1]]}),
            None,
            "the column 'number' has the type list<element: int64>, and not text, numbers",
        ),
        (
            pa.table({"number": ["1"]}),
            None,
            r"has other columns than \S+0.parquet: number \(large_binary\), and not number \(int64",
        ),
        (
            pa.table({"number": pa.array([1, None])}),
            None,
            "row group 0 has rows without 'number'",
        ),
        (pa.table({"number": range(10**4)}), None, "row group 0 has 80,.* at most 50,000 are read"),
        (None, None, "no Parquet file; of a datasets.Dataset, its to_parquet"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path, monkeypatch, first_example, table, columns, message):
    monkeypatch.setattr(ours, "_MAX_ROW_GROUP", 50_000)
    write(tmp_path / "0.parquet", NUMBERS)
    if table is None:
        with pa.ipc.new_stream(tmp_path / "1.parquet", NUMBERS.schema) as stream:
            stream.write_table(NUMBERS)
    else:
        write(tmp_path / "1.parquet", table, use_dictionary=False)
    with pytest.raises(UserError, match=rf"{tmp_path}/1.parquet\b.*{message}"):
        first_example(columns)
