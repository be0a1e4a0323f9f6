"""The streams of a task: each example once an epoch, far from its place, resumed anywhere."""

import gzip
import itertools

import numpy as np
import pyarrow as pa
import pytest
import seqio
from pyarrow import parquet

from switch_jax.data.reading import file_chunks, shuffle_blocks
from switch_jax.data.reading.parquet import ParquetDataSource
from switch_jax.data.reading.position import Cursor
from switch_jax.tasks.english import read_lines
from switch_jax.utils.errors import UserError
from tests.data.helpers import (
    as_pair,
    epochs_of,
    lines,
    parse,
    records,
    task_examples,
    text_of,
    write_records,
)

COUNT = 1000


# Each writes the numbers, and gives a source of them, where the files are to be, and a step.


def write_lines(folder, at=None):
    (folder / "sorted.txt").write_text(text_of(range(COUNT)))
    return lines((at or folder) / "sorted.txt"), parse


def write_parquet(folder, at=None):
    table = pa.table({"number": range(COUNT), "text": [str(n) for n in range(COUNT)]})
    parquet.write_table(table, folder / "sorted.parquet", row_group_size=COUNT // 4)
    return ParquetDataSource({"train": str((at or folder) / "sorted.parquet")}), as_pair


def write_archive(folder, at=None):
    (folder / "sorted.txt.gz").write_bytes(gzip.compress(text_of(range(COUNT)).encode()))
    return seqio.FileDataSource(read_lines, {"train": str((at or folder) / "sorted.txt.gz")}), parse


def write_tfrecords(folder, at=None):
    write_records(folder / "sorted.tfrecord", ({"number": [n]} for n in range(COUNT)))
    return records((at or folder) / "sorted.tfrecord"), as_pair


def write_many(folder, at=None):
    for i in range(10):
        some = range(COUNT * i // 10, COUNT * (i + 1) // 10)
        (folder / f"part{i}.txt").write_text(text_of(some))
    return lines((at or folder) / "part*.txt"), parse


KINDS = [write_lines, write_parquet, write_archive, write_tfrecords, write_many]


@pytest.fixture
def task(register):
    """Registers the task `sorted` with a source and a step; gives its examples."""

    def add(source, step, num_streams=1, shuffle=True):
        return task_examples(register("sorted", source, [step]), num_streams, shuffle=shuffle)

    return add


@pytest.mark.parametrize(
    ("write", "chunk_bytes"),
    [
        (write_lines, file_chunks.MAX_CHUNK_BYTES),
        (write_parquet, 64),
        (write_archive, 64),
        (write_many, 64),
    ],
)
def test_examples_go_everywhere_and_epochs_do_not_resemble(
    tmp_path, monkeypatch, task, write, chunk_bytes
):
    monkeypatch.setattr(file_chunks, "MAX_CHUNK_BYTES", chunk_bytes)
    first, second = map(np.array, epochs_of(task(*write(tmp_path)), 0, 2))
    places = np.arange(COUNT)
    # A random permutation moves an example by a third of all on average, and some by nearly all.
    for order in (first, second):
        np.testing.assert_array_equal(np.sort(order), places)
        moved = np.abs(order - places)
        assert 0.25 < moved.mean() / COUNT < 0.42
        assert moved.max() > 0.8 * COUNT
    # With 32 chunks or more, a correlation of 0.18 by chance.
    for one, other in ((places, first), (places, second), (first, second)):
        assert abs(np.corrcoef(np.argsort(one), np.argsort(other))[0, 1]) < 0.3


def test_streams_of_one_file_read_all_regions_of_it_at_any_time(tmp_path, monkeypatch, task):
    monkeypatch.setattr(file_chunks, "MAX_CHUNK_BYTES", 64)
    examples = task(*write_lines(tmp_path), num_streams=4)
    epochs = [epochs_of(examples, stream, 2) for stream in range(4)]
    for stream in epochs:
        start = stream[0][:100]  # of 250
        assert min(start) < 0.2 * COUNT and max(start) > 0.8 * COUNT
        assert len(set(stream[0]) & set(stream[1])) < 0.5 * COUNT / 4


@pytest.mark.parametrize(
    ("name", "num_streams", "shuffle"),
    [
        ("numbers_1", 9, True),
        ("numbers_6", 4, True),
        ("numbers_6", 9, False),
        ("numbers_zip", 4, False),
    ],
)
def test_in_each_epoch_the_streams_share_out_every_example_once(
    numbers, name, num_streams, shuffle
):
    task = task_examples(seqio.TaskRegistry.get(name), num_streams, shuffle=shuffle)
    streams = [epochs_of(task, stream, 3) for stream in range(num_streams)]
    orders = [list(itertools.chain(*epoch)) for epoch in zip(*streams, strict=True)]
    for order in orders:
        assert sorted(order) == list(range(2, 62))
    assert (orders[0] != orders[1]) == (shuffle or task._order.num_parts > 1)


@pytest.mark.parametrize("write", [write_archive, write_many])
def test_without_shuffling_the_order_is_that_of_the_source(tmp_path, monkeypatch, task, write):
    monkeypatch.setattr(file_chunks, "MAX_CHUNK_BYTES", 1000)
    for order in epochs_of(task(*write(tmp_path), shuffle=False), 0, 2):
        assert order == list(range(COUNT))


def test_a_task_that_forbids_shuffling_keeps_its_order(tmp_path, register):
    source, step = write_lines(tmp_path)
    task = register("in_order", source, [step], shuffle_buffer_size=None)
    assert epochs_of(task_examples(task), 0, 1) == [list(range(COUNT))]


@pytest.mark.parametrize("write", KINDS)
def test_reading_resumes_at_any_position(tmp_path, monkeypatch, task, write):
    monkeypatch.setattr(file_chunks, "MAX_CHUNK_BYTES", 64)
    monkeypatch.setattr(shuffle_blocks, "_BLOCK_SIZE", 100)
    examples = task(*write(tmp_path), num_streams=2)
    whole = list(itertools.islice(examples.read(1, Cursor()), 700))  # of 500 an epoch
    for start in (1, 100, 434, 500):
        again = itertools.islice(examples.read(1, whole[start - 1][1]), 30)
        for (a, place), (b, expected) in zip(again, whole[start : start + 30], strict=False):
            assert (a["inputs"], place) == (b["inputs"], expected)


def test_noise_differs_between_blocks_epochs_and_seeds_and_comes_again(numbers, monkeypatch):
    monkeypatch.setattr(file_chunks, "MAX_CHUNK_BYTES", 8)

    def noise(seed):
        examples = task_examples(seqio.TaskRegistry.get("numbers_noise"), seed=seed)
        read = examples.read(0, Cursor())
        return [int(example["targets"][0]) for example, _ in itertools.islice(read, 120)]

    first = noise(0)
    assert len(set(first)) == 120  # of 2 epochs, some blocks each
    assert first == noise(0)
    assert not set(first) & set(noise(1))


def test_a_stream_without_any_example_is_an_error_and_not_an_endless_wait(tmp_path, task):
    (tmp_path / "part0.txt").touch()
    (tmp_path / "part1.txt").write_text("7\n8\n")
    examples = task(lines(tmp_path / "part*.txt"), parse, num_streams=2, shuffle=False)
    assert next(examples.read(1, Cursor()))[0]["inputs"] == [7]
    with pytest.raises(UserError, match="sorted, in the share of stream 0 of 2, gives no"):
        next(examples.read(0, Cursor()))
