"""Which files a task is read from, and what has changed, of files written by hand."""

import json
import os

import pytest
import seqio

from switch_jax.config import DataConfig
from switch_jax.data.configured_tasks import OpenedTasks
from switch_jax.data.data_files import DataFile, FilesOfTask, changed_files, data_files, summary
from switch_jax.data.position import Cursor, Position, StreamPosition
from switch_jax.errors import TransientError, UserError
from switch_jax.storage import listing
from tests.data.number_tasks import FEATURES, parse
from tests.data.test_sources import tfds_slice


def files_of(source):
    task = seqio.Task("mine", source=source, preprocessors=[parse], output_features=FEATURES)
    lengths = {"inputs": 1, "targets": 1}
    return data_files(OpenedTasks(DataConfig("mine", lengths), (task,)))["mine"]


def lines(folder, sizes):
    """A source of text files of these sizes in bytes, by name, in this order."""
    folder.mkdir(exist_ok=True)
    for name, size in sizes.items():
        (folder / name).write_bytes(b"1" * size)
    return seqio.TextLineDataSource({"train": [str(folder / name) for name in sizes]})


def change(one, other):
    """What is said of the change from one source to another."""
    before, now = summary(files_of(one)), summary(files_of(other))
    saved = FilesOfTask(**json.loads(json.dumps(before._asdict())))
    return changed_files({"mine": saved, "gone": saved}, {"mine": now, "new": now}).get("mine")


BEFORE = {"a.txt": 3, "b.txt": 4}


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (BEFORE, None),
        ({**BEFORE, "c.txt": 5}, "had 2 files of 7 bytes, and has 3 files of 12 bytes"),
        ({"b.txt": 4}, "had 2 files of 7 bytes, and has 1 file of 4 bytes"),
        ({"a.txt": 3, "b.txt": 5}, "had 2 files of 7 bytes, and has 2 files of 8 bytes"),
        ({"a.txt": 4, "b.txt": 3}, "had 2 files of 7 bytes, and has 2 files of 7 bytes with other"
         " sizes"),
        ({"b.txt": 4, "a.txt": 3}, "had 2 files of 7 bytes, and has 2 files of 7 bytes with other"
         " names"),
        ({"a.txt": 3, "c.txt": 4}, "had 2 files of 7 bytes, and has 2 files of 7 bytes with other"
         " names"),
    ],
)  # fmt: skip
def test_files_may_move_but_not_change(tmp_path, now, said):
    assert change(lines(tmp_path / "here", BEFORE), lines(tmp_path / "there", now)) == said


def test_files_may_move_to_a_bucket(tmp_path, bucket_path):
    bucket = lines(bucket_path, BEFORE)
    assert files_of(bucket) == [DataFile("a.txt", 0, -1, 3), DataFile("b.txt", 0, -1, 4)]
    assert change(lines(tmp_path, BEFORE), bucket) is None
    more = change(bucket, lines(tmp_path, {**BEFORE, "c.txt": 5}))
    assert more == "had 2 files of 7 bytes, and has 3 files of 12 bytes"


def test_without_sizes_as_earlier_versions_saved_them_the_names_are_compared(tmp_path):
    now = summary(files_of(lines(tmp_path, BEFORE)))
    before = now._replace(size=None, sizes="")
    assert changed_files({"mine": before}, {"mine": now}) == {}
    other = summary(files_of(lines(tmp_path, {**BEFORE, "c.txt": 5})))
    said = "had 2 files, and has 3 files of 12 bytes"
    assert changed_files({"mine": before}, {"mine": other}) == {"mine": said}


def test_of_tfds_the_part_of_each_file_counts(tmp_path):
    source, *_ = tfds_slice(tmp_path)  # examples 5 to 25 of 40
    (file,) = files_of(source)
    assert file[:3] == ("anli-train.tfrecord-00000-of-00001", 5, 20)
    assert file.size == next(tmp_path.rglob("*train*")).stat().st_size


def test_a_source_without_files_has_none():
    source = seqio.FunctionDataSource(lambda split, shuffle_files: None, ["train"])
    assert files_of(source) == []
    assert summary([]).files == 0


def test_a_file_that_is_not_there_is_named(tmp_path, monkeypatch):
    source = lines(tmp_path, BEFORE)
    (tmp_path / "b.txt").unlink()
    with pytest.raises(UserError, match=rf"mine: {tmp_path}/b.txt cannot be read: No such file"):
        files_of(source)

    def fail(path):
        raise OSError(5, os.strerror(5), path)

    monkeypatch.setattr(listing.os, "stat", fail)
    with pytest.raises(TransientError, match="a.txt cannot be read: Input/output error; this may"):
        files_of(source)


def test_a_position_in_other_files_becomes_the_next_epoch():
    cursors = {"mine": Cursor(2, 1, 5, 17), "other": Cursor(0, 3, 2, 1)}
    position = Position(7, {0: StreamPosition(99, cursors), 3: StreamPosition(5, cursors)})
    moved = position.at_next_epoch({"mine"})
    assert moved.batches == 7
    for stream, draws in ((0, 99), (3, 5)):
        assert moved.stream(stream, ["mine", "other", "new"]) == (
            draws, [Cursor(3), Cursor(0, 3, 2, 1), Cursor()]
        )  # fmt: skip
