"""Damaged data is reported in one line with the file and the position of the damage."""

import functools
import gzip
import os
import struct
import zlib
from pathlib import Path

import pytest
import seqio
import tensorflow as tf

from switch_jax.cli import main
from switch_jax.data.catalogue.checks import open_tasks
from switch_jax.data.reading import compression, file_chunks
from switch_jax.data.reading.epoch_order import EpochOrder
from switch_jax.data.reading.position import Cursor
from switch_jax.data.reading.shuffle_blocks import SequentialBlocks
from switch_jax.data.reading.sources import open_source, source_files
from switch_jax.data.train_batches import TrainBatches
from switch_jax.tasks import english
from switch_jax.utils.errors import TransientError, UserError
from tests.data.helpers import (
    as_both,
    as_pair,
    assert_both_end,
    config_of,
    features,
    lines,
    records,
    task_examples,
    text_of,
    write_records,
)
from tests.trainer.helpers import STACKS

SPLITS = ("train", "validation")
STEPS = [as_both, seqio.preprocessors.tokenize, seqio.preprocessors.append_eos]
ENGLISH = features(english.VOCABULARY)


def test_a_line_that_is_not_utf_8(tmp_path, register):
    (tmp_path / "part0.txt").write_bytes(b"hello\nworld\nagain\n")
    (tmp_path / "part1.txt").write_bytes(b"hello\ncaf\xe9 au lait\nagain\n")
    register("latin", lines(tmp_path / "part*.txt", *SPLITS), STEPS, ENGLISH)
    assert_both_end("latin", f"{tmp_path}/part1.txt: a binary file, .*: not UTF-8 at byte 9$")


@pytest.mark.parametrize("change", [Path.unlink, lambda file: os.truncate(file, 5000)])
def test_a_file_that_is_removed_or_cut_off_ends_the_run_with_its_name(tmp_path, register, change):
    file = tmp_path / "numbers.txt"
    file.write_text(text_of(range(2, 2002)))
    examples = task_examples(register("changing", lines(file))).read(0, Cursor())
    next(examples)
    change(file)
    with pytest.raises(UserError, match=f"changing, split 'train': {file}: ") as error:
        next(cursor for _, cursor in examples if cursor.epoch == 10)
    assert not isinstance(error.value, TransientError)


@pytest.fixture
def examples(tmp_path, register):
    """The file of a task `examples`, of 40 tf.Examples of the same length."""
    path = tmp_path / "x.tfrecord"
    write_records(path, [{"number": [7]}] * 40)
    register("examples", records(path, *SPLITS), [as_pair])
    return path


# A length that no memory has, and its CRC-32C as TFRecords mask it.
TOO_LONG = struct.pack("<QI", 2**60, 0x8E4E23C4)


@pytest.mark.parametrize(
    ("place", "damage", "message"),
    [
        (
            0,
            TOO_LONG,
            f"it was cut off: {{}} is shorter than the {2**60} bytes that its header says",
        ),
        (20, bytes(8), "{} does not fit its checksum"),
    ],
)
def test_a_damaged_record(examples, place, damage, message):
    written = bytearray(examples.read_bytes())
    begin = 30 * (len(written) // 40)
    written[begin + place : begin + place + len(damage)] = damage
    examples.write_bytes(written)
    assert_both_end("examples", f"{examples}: " + message.format(f"the record at byte {begin}"))


@pytest.mark.parametrize("left", [5, 20])
def test_records_that_were_cut_off(examples, left, capsys):
    """In the header of the last record, or in its data."""
    written = examples.read_bytes()
    begin = 39 * (len(written) // 40)
    examples.write_bytes(written[: begin + left])
    message = f"{examples}: it was cut off: the record at byte {begin} "
    assert_both_end("examples", message)
    assert main(["tasks", "examples", "--examples=40"]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1


def test_compressed_records_that_were_cut_off(tmp_path, register):
    """TensorFlow finds the half of a record before the end of the file is checked."""
    file = tmp_path / "x.tfrecord.gz"
    with tf.io.TFRecordWriter(str(file), "GZIP") as writer:
        for number in range(400):
            feature = tf.train.Feature(int64_list=tf.train.Int64List(value=[number % 7]))
            features = tf.train.Features(feature={"number": feature})
            writer.write(tf.train.Example(features=features).SerializeToString())
    file.write_bytes(file.read_bytes()[:-30])
    reader = functools.partial(tf.data.TFRecordDataset, compression_type="GZIP")
    described = {"number": tf.io.FixedLenFeature([], tf.int64)}
    source = seqio.TFExampleDataSource(dict.fromkeys(SPLITS, str(file)), described, reader)
    register("compressed", source, [as_pair])
    assert_both_end("compressed", f"{file}: it was cut off")


def test_records_before_a_damaged_block_are_trained_on(examples, monkeypatch):
    monkeypatch.setattr(file_chunks, "MAX_CHUNK_BYTES", 50)  # 4 chunks a block: some 5 records
    written = bytearray(examples.read_bytes())
    written[30 * (len(written) // 40) + 20] ^= 1
    examples.write_bytes(written)
    config = config_of("examples", pack=False, shuffle_train_examples=False)
    batches = TrainBatches(open_tasks(config), STACKS, 5)
    for _ in range(5):
        next(batches)
    with pytest.raises(UserError, match="does not fit its checksum"):
        for _ in range(3):
            next(batches)


def test_a_record_that_is_no_example(examples, capfd):
    with tf.io.TFRecordWriter(str(examples)) as file:
        file.write(bytes(range(128, 256)))  # TensorFlow's message quotes them
    assert_both_end("examples", f"a record is no tf.Example; while reading {examples}")
    capfd.readouterr()
    assert main(["tasks", "examples", "--examples=40"]) == 2
    assert capfd.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_data_file_is_an_ordinary_file(examples, make):
    examples.unlink()
    make(examples)
    with pytest.raises(UserError, match=f"{examples} is a folder, a pipe or a device: write what"):
        open_tasks(config_of("examples", 64))


def test_a_damaged_archive(storage, register):
    written = bytearray(gzip.compress(b"hello world\n" * 1000))
    written[-8] ^= 1  # of the checksum
    file = storage / "lines.txt.gz"
    file.write_bytes(written)
    source = seqio.FileDataSource(english.read_lines, {"train": str(file)})
    register("archive", source, STEPS, ENGLISH)
    with pytest.raises(UserError, match=f"archive, split 'train': .*; while reading {file}$"):
        next(TrainBatches(open_tasks(config_of("archive", 64)), STACKS, 500))


def archive_source(file, kind="GZIP"):
    def read(path):
        return tf.data.TextLineDataset(path, compression_type=kind)

    return seqio.FileDataSource(read, dict.fromkeys(SPLITS, str(file)))


@pytest.mark.parametrize(
    ("kind", "compress", "left"),
    [
        ("GZIP", gzip.compress, lambda size: size // 2),
        ("GZIP", gzip.compress, lambda size: size - 1),  # all text is there
        ("GZIP", gzip.compress, lambda size: 0),
        ("ZLIB", zlib.compress, lambda size: size // 2),
    ],
    ids=["half", "last byte", "all", "zlib"],
)
def test_a_compressed_file_that_was_cut_off(storage, register, kind, compress, left):
    """TensorFlow takes what is left for a whole file."""
    written = compress(text_of(range(2, 2002)).encode())
    file = storage / "lines.gz"
    file.write_bytes(written[: left(len(written))])
    register("cut", archive_source(file, kind), STEPS, ENGLISH)
    assert_both_end("cut", f"{file}: it was cut off")


def test_one_of_the_streams_with_parts_of_a_compressed_file_checks_it(tmp_path, monkeypatch):
    file, checked = tmp_path / "lines.gz", []
    is_cut_off = compression._is_cut_off

    def noted(path):
        checked.append(path)
        return is_cut_off(path)

    monkeypatch.setattr(compression, "_is_cut_off", noted)
    written = gzip.compress(text_of(range(2, 102)).encode())
    order = EpochOrder(1, 4, (0,), True)
    blocks = SequentialBlocks(source_files(archive_source(file), "train"), order, True)

    def read_epoch(epoch):
        for stream in range(4):
            shard = next(order.shards(stream, epoch, 0))
            assert len(list(blocks.inputs([(shard, 0)]))) == 1

    file.write_bytes(written)
    read_epoch(0)
    read_epoch(1)
    assert checked == [str(file)] * 2
    file.write_bytes(written[:-1])
    with pytest.raises(OSError, match="it was cut off"):
        read_epoch(2)


def test_whole_compressed_files_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(compression, "_BLOCK", 100)
    text = text_of(range(1000)).encode()
    for name, kind, written in (
        ("one.gz", "GZIP", gzip.compress(text)),
        ("one_after_another", "GZIP", gzip.compress(text[:1000]) + gzip.compress(text[1000:])),
        ("fast.zlib", "ZLIB", zlib.compress(text, 1)),
    ):
        (tmp_path / name).write_bytes(written)
        found = open_source(archive_source(tmp_path / name, kind), "train")
        assert [int(line) for line in found.as_numpy_iterator()] == list(range(1000))


def test_the_commands_about_tasks_say_that_a_file_was_cut_off(tmp_path, register, capsys):
    file = tmp_path / "lines.gz"
    file.write_bytes(gzip.compress(text_of(range(2, 102)).encode())[:-1])
    steps = [as_both, seqio.preprocessors.tokenize, seqio.CacheDatasetPlaceholder()]
    register("cut", archive_source(file), steps, ENGLISH)
    output = str(tmp_path / "x")
    for command in (
        ["cut", "--examples=200"],
        ["cache", "cut", f"--output={output}"],
        ["vocabulary", "cut", "--size=300", f"--output={output}"],
    ):
        assert main(["tasks", *command]) == 2
        printed = capsys.readouterr().err
        assert f"{file}: it was cut off" in printed and printed.count("\n") == 1
