"""Damaged data is reported in one line with the file and the position of the damage."""

import errno
import gzip
import os
import re
import struct
from pathlib import Path

import pytest
import seqio
import tensorflow as tf

from switch_jax.cli import main
from switch_jax.data.catalogue.checks import check_examples, open_tasks
from switch_jax.data.eval_batches import eval_batches
from switch_jax.data.reading import file_chunks
from switch_jax.data.reading.position import Cursor
from switch_jax.data.train_batches import TrainBatches
from switch_jax.tasks import english
from switch_jax.utils.errors import TransientError, UserError
from tests.data.helpers import (
    ANLI_RECORD,
    as_both,
    config_of,
    features,
    lines,
    prepare,
    task_examples,
    text_of,
    validation,
)

SPLITS = ("train", "validation")
STEPS = [as_both, seqio.preprocessors.tokenize, seqio.preprocessors.append_eos]
ENGLISH = features(english.VOCABULARY)


def assert_both_end(name, message):
    """Checks that training and evaluation on a task end with a message, after its split."""
    config = config_of(name, 64)
    with pytest.raises(UserError, match=f"^{name}, split 'train': {message}"):
        next(TrainBatches(open_tasks(config), 1000))
    with pytest.raises(UserError, match=f"^{name}, split 'validation': {message}"):
        list(eval_batches(validation(config), 1000))


def test_a_line_that_is_not_utf_8(tmp_path, register):
    (tmp_path / "part0.txt").write_bytes(b"hello\nworld\nagain\n")
    (tmp_path / "part1.txt").write_bytes(b"hello\ncaf\xe9 au lait\nagain\n")
    register("latin", lines(tmp_path / "part*.txt", *SPLITS), STEPS, ENGLISH)
    assert_both_end("latin", f"{tmp_path}/part1.txt: not UTF-8 at byte 9$")


@pytest.fixture
def records(tmp_path, folders_as_before):
    """ANLI's third round with 40 training examples, one of which is damaged."""
    prepare(
        tmp_path, "anli", "r3", "0.1.0", {"train": [ANLI_RECORD] * 40, "validation": [ANLI_RECORD]}
    )
    (file,) = tmp_path.glob("anli/r3/0.1.0/*train.tfrecord*")
    written = bytearray(file.read_bytes())
    begin = len(written) // 40 * 30  # all records are of the same length: the 31st
    written[begin + 30] ^= 1
    file.write_bytes(written)
    seqio.set_tfds_data_dir_override(str(tmp_path))
    return rf"anli_r3, split 'train': {file}: the record at byte {begin} does not fit its checksum"


def test_a_damaged_record(records, monkeypatch):
    # Small chunks: the examples before the damaged block are trained on.
    monkeypatch.setattr(file_chunks, "MAX_CHUNK_BYTES", 500)
    config = config_of("anli_r3", 64, vocabulary="byte", pack=False)
    batches = TrainBatches(open_tasks(config), 10)
    with pytest.raises(UserError, match=records):
        for _ in range(4):
            next(batches)


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


# The length, and its CRC-32C as TFRecords mask it.
TOO_LONG = struct.pack("<QI", 2**60, 0x8E4E23C4)


@seqio.map_over_dataset
def as_int32(example):
    return {name: tf.cast(number, tf.int32) for name, number in example.items()}


@pytest.fixture
def examples(tmp_path, register):
    """A task of 40 tf.Examples of 40 bytes, and its file."""
    path = tmp_path / "x.tfrecord"
    feature = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
    both = tf.train.Features(feature=dict.fromkeys(ENGLISH, feature))
    with tf.io.TFRecordWriter(str(path)) as file:
        for _ in range(40):
            file.write(tf.train.Example(features=both).SerializeToString())
    described = dict.fromkeys(ENGLISH, tf.io.FixedLenFeature([1], tf.int64))
    source = seqio.TFExampleDataSource(dict.fromkeys(SPLITS, str(path)), described)
    register("examples", source, [as_int32], features(english.VOCABULARY, add_eos=False))
    return path


def assert_one_line(message, capfd):
    """Checks that training and evaluation on `examples` end with a message, and `tasks` too."""
    assert_both_end("examples", message)
    capfd.readouterr()
    assert main(["tasks", "examples", "--examples=40"]) == 2
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert re.search(message, printed.err)


@pytest.mark.parametrize("number", [0, 30])
def test_a_record_with_a_length_that_no_memory_has(examples, number, capfd):
    written = bytearray(examples.read_bytes())
    begin = number * (len(written) // 40)
    written[begin : begin + 12] = TOO_LONG
    examples.write_bytes(written)
    message = f"record at byte {begin} is shorter than the {2**60} bytes that its header says"
    assert_one_line(f"{examples}: the {message}", capfd)


def test_a_record_that_is_no_example(examples, capfd):
    with tf.io.TFRecordWriter(str(examples)) as file:
        file.write(bytes(range(128, 256)))  # TensorFlow's message quotes them
    assert_one_line(f"a record is no tf.Example; while reading {examples}", capfd)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
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
        next(TrainBatches(open_tasks(config_of("archive", 64)), 500))


def test_a_failing_step_is_reported_as_such(register):
    register("failing", lines(english.DATA / "README.md"))
    message = "failing, split 'train': String.*; while reading .*README.md"
    with pytest.raises(UserError, match=message):
        check_examples(open_tasks(config_of("failing", 64)))


def test_a_storage_failure_is_transient(tmp_path, monkeypatch, register):
    file = tmp_path / "x.txt"
    file.write_text("hello\n")

    def fail(path, begin, end):
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setattr(file_chunks, "read_range", fail)
    register("faulty", lines(file, *SPLITS), STEPS, ENGLISH)
    config = config_of("faulty", 64)
    failure = f"{file}: Input/output error; this may pass"
    with pytest.raises(TransientError, match=f"^faulty, split 'validation': {failure}"):
        list(eval_batches(validation(config), 2))
    with pytest.raises(TransientError, match=f"^faulty, split 'train': {failure}"):
        next(TrainBatches(open_tasks(config), 2))
