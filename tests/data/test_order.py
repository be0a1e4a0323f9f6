"""How far examples are moved from their place in the source, and how epochs differ."""

import gzip
import itertools

import numpy as np
import pyarrow as pa
import pytest
import seqio
import tensorflow as tf
from pyarrow import parquet

from switch_jax.data import blocks, file_chunks
from switch_jax.data.parquet import ParquetDataSource
from switch_jax.data.position import Cursor
from switch_jax.tasks.english import read_lines
from tests.data.number_tasks import FEATURES, parse, task_examples

COUNT = 1000


@seqio.map_over_dataset
def as_pair(example):
    number = tf.cast(example["number"][None], tf.int32)
    return {"inputs": number, "targets": number}


def write_lines(folder):
    (folder / "sorted.txt").write_text("".join(f"{n}\n" for n in range(COUNT)))
    return seqio.TextLineDataSource({"train": str(folder / "sorted.txt")}), parse


def write_parquet(folder):
    table = pa.table({"number": range(COUNT), "text": [str(n) for n in range(COUNT)]})
    parquet.write_table(table, folder / "sorted.parquet", row_group_size=COUNT // 4)
    return ParquetDataSource({"train": str(folder / "sorted.parquet")}), as_pair


def write_archive(folder):
    text = "".join(f"{n}\n" for n in range(COUNT))
    (folder / "sorted.txt.gz").write_bytes(gzip.compress(text.encode()))
    return seqio.FileDataSource(read_lines, {"train": str(folder / "sorted.txt.gz")}), parse


def write_records(folder):
    with tf.io.TFRecordWriter(str(folder / "sorted.tfrecord")) as file:
        for n in range(COUNT):
            value = tf.train.Feature(int64_list=tf.train.Int64List(value=[n]))
            features = tf.train.Features(feature={"number": value})
            file.write(tf.train.Example(features=features).SerializeToString())
    described = {"number": tf.io.FixedLenFeature([], tf.int64)}
    files = {"train": str(folder / "sorted.tfrecord")}
    return seqio.TFExampleDataSource(files, described), as_pair


def write_many(folder):
    for i in range(10):
        some = range(COUNT * i // 10, COUNT * (i + 1) // 10)
        (folder / f"part{i}.txt").write_text("".join(f"{n}\n" for n in some))
    return seqio.TextLineDataSource({"train": str(folder / "part*.txt")}), parse


KINDS = [write_lines, write_parquet, write_archive, write_records, write_many]


@pytest.fixture
def task():
    """Registers the task `sorted` with a source and a step until the end of the test."""

    def add(source, step, num_streams=1, shuffle=True):
        found = seqio.TaskRegistry.add(
            "sorted", source=source, preprocessors=[step], output_features=FEATURES
        )
        return task_examples(found, num_streams, shuffle=shuffle)

    yield add
    seqio.TaskRegistry.remove("sorted")


def orders(task, stream, count):
    """The numbers that a stream reads in its first epochs, an array for each."""
    found = [[] for _ in range(count)]
    for example, cursor in task.read(stream, Cursor()):
        if cursor.epoch >= count:
            return [np.array(epoch) for epoch in found]
        found[cursor.epoch].append(int(example["inputs"][0]))


@pytest.mark.parametrize(
    "chunk_bytes", [file_chunks.MAX_CHUNK_BYTES, 64], ids=["one_block", "blocks"]
)
@pytest.mark.parametrize("write", KINDS)
def test_examples_go_everywhere_and_epochs_do_not_resemble(
    tmp_path, monkeypatch, task, write, chunk_bytes
):
    if write is write_archive and chunk_bytes == 64:
        pytest.skip("archives are not cut")
    monkeypatch.setattr(file_chunks, "MAX_CHUNK_BYTES", chunk_bytes)
    first, second = orders(task(*write(tmp_path)), 0, 2)
    places = np.arange(COUNT)
    np.testing.assert_array_equal(np.sort(first), places)
    np.testing.assert_array_equal(np.sort(second), places)
    # A random permutation moves an example by a third of all on average, and some by nearly all.
    for order in (first, second):
        moved = np.abs(order - places)
        assert 0.25 < moved.mean() / COUNT < 0.42
        assert moved.max() > 0.8 * COUNT
    # With 32 chunks or more, a correlation of 0.18 by chance.
    for one, other in ((places, first), (places, second), (first, second)):
        assert abs(np.corrcoef(np.argsort(one), np.argsort(other))[0, 1]) < 0.3


def test_streams_of_one_file_read_all_regions_of_it_at_any_time(tmp_path, monkeypatch, task):
    monkeypatch.setattr(file_chunks, "MAX_CHUNK_BYTES", 64)
    examples = task(*write_lines(tmp_path), num_streams=4)
    epochs = [orders(examples, stream, 2) for stream in range(4)]
    for epoch in range(2):
        together = np.concatenate([stream[epoch] for stream in epochs])
        np.testing.assert_array_equal(np.sort(together), np.arange(COUNT))
    for stream in epochs:
        start = stream[0][:100]  # of 250
        assert start.min() < 0.2 * COUNT and start.max() > 0.8 * COUNT
        assert len(set(stream[0]) & set(stream[1])) < 0.5 * COUNT / 4


def test_an_epoch_of_archives_that_do_not_divide_over_the_streams(tmp_path, task):
    for i in range(7):
        text = "".join(f"{n}\n" for n in range(30 * i, 30 * i + 30)).encode()
        (tmp_path / f"part{i}").write_bytes(gzip.compress(text))
    source = seqio.FileDataSource(read_lines, {"train": str(tmp_path / "part*")})
    examples = task(source, parse, num_streams=3)
    for streams in zip(*(orders(examples, stream, 2) for stream in range(3)), strict=True):
        np.testing.assert_array_equal(np.sort(np.concatenate(streams)), np.arange(210))
        assert [len(stream) for stream in streams] == [70] * 3


@pytest.mark.parametrize("write", KINDS)
def test_without_shuffling_the_order_is_that_of_the_source(tmp_path, monkeypatch, task, write):
    monkeypatch.setattr(file_chunks, "MAX_CHUNK_BYTES", 1000)
    for order in orders(task(*write(tmp_path), shuffle=False), 0, 2):
        np.testing.assert_array_equal(order, np.arange(COUNT))


@pytest.mark.parametrize("write", KINDS)
def test_reading_resumes_at_any_position(tmp_path, monkeypatch, task, write):
    monkeypatch.setattr(file_chunks, "MAX_CHUNK_BYTES", 64)
    monkeypatch.setattr(blocks, "_BLOCK_SIZE", 100)
    examples = task(*write(tmp_path), num_streams=2)
    whole = list(itertools.islice(examples.read(1, Cursor()), 700))  # of 500 an epoch
    for start in (1, 99, 100, 101, 434, 500, 600):
        again = itertools.islice(examples.read(1, whole[start - 1][1]), 30)
        for (a, place), (b, expected) in zip(again, whole[start : start + 30], strict=False):
            assert (a["inputs"], place) == (b["inputs"], expected)
