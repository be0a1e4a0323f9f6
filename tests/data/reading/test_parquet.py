"""Parquet files are read by row groups; what is wrong with one is said in one line."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from pyarrow import parquet

from switch_jax.data.reading import parquet as ours
from switch_jax.data.reading.file_chunks import FileSlice
from switch_jax.data.reading.parquet import ParquetDataSource
from switch_jax.data.reading.position import Cursor
from switch_jax.data.reading.sources import open_source, source_files
from switch_jax.storage import read_range
from switch_jax.utils.errors import UserError
from tests.data.helpers import as_pair, task_examples


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


def test_columns_may_have_another_order_in_each_file(tmp_path):
    write(tmp_path / "0.parquet", pa.table({"a": [1], "b": [2]}))
    write(tmp_path / "1.parquet", pa.table({"b": [2], "a": [1]}))
    rows = open_source(ParquetDataSource({"train": str(tmp_path / "*.parquet")}), "train")
    assert [list(row.items()) for row in rows.as_numpy_iterator()] == 2 * [[("a", 1), ("b", 2)]]


def test_a_large_row_group_is_read_once_for_each_block(tmp_path, monkeypatch):
    """32 chunks of 94 KB, five in a block: in all they read the file seven times."""
    table = pa.table({"text": [f"{n:03}" * 1000 for n in range(1000)]})
    write(tmp_path / "x.parquet", table, use_dictionary=False, compression="none")
    (size,) = ours.file_sizes([str(tmp_path / "x.parquet")])
    read = []

    def counted(path, begin, end):
        read.append(end - begin)
        return read_range(path, begin, end)

    monkeypatch.setattr(ours, "read_range", counted)
    format = ParquetDataSource({"train": str(tmp_path / "x.parquet")}).format("train")
    chunks = format.cut([FileSlice(str(tmp_path / "x.parquet"))], 1)
    blocks = chunks.blocks(np.random.default_rng(0).permutation(len(chunks)))
    assert (len(chunks), len(blocks)) == (32, 7)
    read.clear()
    contents = [b"".join(call() for call in chunks.reads(block)) for block in blocks]
    assert sum(read) == pytest.approx(7 * size, rel=0.01)
    assert max(map(len, contents)) < 2**19


@pytest.fixture
def first_example(tmp_path, register):
    """Reads the first example of a task of all Parquet files in the test's folder."""

    def read(columns=None):
        source = ParquetDataSource({"train": str(tmp_path / "*.parquet")}, columns)
        return next(task_examples(register("parquet", source, [as_pair])).read(0, Cursor()))

    return read


NUMBERS = pa.table({"number": [1, 2]})


@pytest.mark.parametrize(
    ("table", "columns", "message"),
    [
        (pa.table({"numbers": [1]}), ["number"], "has no columns named 'number': its columns are"),
        (pa.table([[1], [2]], ["number"] * 2), None, "has 2 columns named 'number': its columns "),
        (pa.table({"number": [[1]]}), None, "the column 'number' has the type list<element: int64"),
        (pa.table({"number": pa.array([1, None])}), None, "row group 0 has rows without 'number'$"),
        (pa.table({"number": range(10**4)}), None, "row group 0 has more than 50,000 bytes"),
        (pa.table({"number": ["1"]}), None, r"has other columns than .*: number \(large_binary\)"),
        (None, None, "it was cut off, or it is no Parquet file"),
    ],
)
def test_a_file_that_does_not_fit(tmp_path, monkeypatch, first_example, table, columns, message):
    monkeypatch.setattr(ours, "_MAX_ROW_GROUP", 50_000)
    write(tmp_path / "0.parquet", NUMBERS)
    if table is None:
        whole = (tmp_path / "0.parquet").read_bytes()
        (tmp_path / "1.parquet").write_bytes(whole[: len(whole) // 2])
    else:
        write(tmp_path / "1.parquet", table)
    with pytest.raises(UserError, match=rf"{tmp_path}/1.parquet\b.*{message}"):
        first_example(columns)


@pytest.mark.parametrize("kind", ["binary", "categorical", "string"])
def test_text_that_is_not_utf_8_is_refused_as_in_lines(tmp_path, kind):
    text = pa.array([b"caf\xc3\xa9", b"caf\xe9"])
    columns = {
        "binary": text,
        "categorical": text.dictionary_encode(),
        "string": pa.Array.from_buffers(pa.string(), len(text), text.buffers()),
    }
    write(tmp_path / "0.parquet", pa.table({"text": columns[kind]}))
    rows = open_source(ParquetDataSource({"train": str(tmp_path / "0.parquet")}), "train")
    with pytest.raises(tf.errors.OpError, match="row group 0: .*Invalid UTF8.*0.parquet"):
        list(rows.as_numpy_iterator())


def test_only_columns_that_are_read_must_fit(tmp_path, monkeypatch, first_example):
    monkeypatch.setattr(ours, "_MAX_ROW_GROUP", 50_000)
    write(tmp_path / "0.parquet", NUMBERS.append_column("text", [["x" * 10**5, "y"]]))
    assert first_example(["number"])


def test_a_first_file_that_is_not_parquet(tmp_path, first_example):
    (tmp_path / "0.parquet").write_text("of another kind")
    write(tmp_path / "1.parquet", NUMBERS)
    with pytest.raises(UserError, match=f"{tmp_path}/0.parquet cannot be read: it was cut off, or"):
        first_example()


def test_columns_are_a_list():
    with pytest.raises(UserError, match=r"write columns=\['number'\]"):
        ParquetDataSource({"train": "x.parquet"}, "number")


def test_without_files(tmp_path):
    source = ParquetDataSource({"train": str(tmp_path / "*.parquet")})
    assert source_files(source, "train").files == []
