"""Which files a task is read from, of files written by hand."""

import os

import pytest
import seqio

from switch_jax.data.catalogue.checks import open_tasks
from switch_jax.data.reading.position import Cursor, Position, StreamPosition
from switch_jax.data.reading.sources import files_digest
from switch_jax.storage import listing
from switch_jax.utils.errors import TransientError, UserError
from tests.data.helpers import FEATURES, config_of, lines, parse
from tests.data.reading.test_sources import tfds_slice


def digest(source, split="train"):
    task = seqio.Task("mine", source=source, preprocessors=[parse], output_features=FEATURES)
    return files_digest(task, split, use_cached=False)


def files(folder, sizes):
    """A source of text files of these sizes in bytes, by name, in this order."""
    folder.mkdir(exist_ok=True)
    for name, size in sizes.items():
        (folder / name).write_bytes(b"1" * size)
    return seqio.TextLineDataSource({"train": [str(folder / name) for name in sizes]})


BEFORE = {"a.txt": 3, "b.txt": 4}


@pytest.mark.parametrize(
    "now",
    [
        {"a.txt": 3, "b.txt": 5},
        {"b.txt": 4, "a.txt": 3},
        {"a.txt": 3, "c.txt": 4},
    ],
)
def test_files_may_move_but_not_change(tmp_path, bucket_path, now):
    before = digest(files(tmp_path / "here", BEFORE))
    assert digest(files(tmp_path / "there", BEFORE)) == digest(files(bucket_path, BEFORE)) == before
    assert digest(files(tmp_path / "changed", now)) != before


def test_of_tfds_the_part_of_each_file_counts(tmp_path):
    source, *_ = tfds_slice(tmp_path)  # examples 5 to 25 of 40, and the rest
    assert digest(source) != digest(source, "validation")


def test_a_file_that_is_not_there_is_named(tmp_path, monkeypatch):
    source = files(tmp_path, BEFORE)
    (tmp_path / "b.txt").unlink()
    with pytest.raises(
        UserError, match=f"^mine, split 'train': there is no file {tmp_path}/b.txt$"
    ):
        digest(source)

    def fail(path):
        raise OSError(5, os.strerror(5), path)

    monkeypatch.setattr(listing.os, "stat", fail)
    with pytest.raises(TransientError, match="a.txt cannot be read: Input/output error; this may"):
        digest(source)


def test_a_second_start_in_one_process_sees_what_has_come_and_gone(storage, register):
    register("growing", lines(storage / "*.txt"))

    def start():
        return open_tasks(config_of("growing")).files_digests

    files(storage, BEFORE)
    first = start()
    (storage / "c.txt").write_bytes(b"1")
    assert start() != first
    (storage / "c.txt").unlink()
    assert start() == first


def test_a_position_in_other_files_becomes_the_next_epoch():
    cursors = {"mine": Cursor(2, 1, 5, 17), "other": Cursor(0, 3, 2, 1)}
    position = Position(7, {0: StreamPosition(99, cursors), 3: StreamPosition(5, cursors)})
    assert Position.from_json([position.as_json()]) == position
    moved = position.at_next_epoch({"mine"})
    assert moved.batches == 7
    for stream, draws in ((0, 99), (3, 5)):
        assert moved.stream(stream, ["mine", "other", "new"]) == (
            draws, [Cursor(3), Cursor(0, 3, 2, 1), Cursor()]
        )  # fmt: skip
