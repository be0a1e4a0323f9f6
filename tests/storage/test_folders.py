import errno
import time
from pathlib import Path

import pytest

from switch_jax.storage import (
    copies_here,
    entries,
    exists,
    file_sizes,
    in_bucket,
    is_folder,
    list_complete,
    list_names,
    local_copy,
    move_folder,
    read_bytes,
    spool,
)
from switch_jax.storage.cloud_storage import CloudStorage
from switch_jax.storage.files import new_folder


def _fill(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_what_is_in_a_folder(storage):
    folder = storage / "a[1]"  # no pattern
    folder = storage / "a1" if "://" in str(storage) else folder
    _fill(folder, ["x", "below/y", "below/deep/z"])
    assert list_names(folder) == ["below", "x"]
    assert list_names(storage / "absent") == []
    assert [read_bytes(folder / name) for name in ("x", "below/y")] == [b"x", b"below/y"]
    found = entries(folder)
    assert {name: (entry.kind, entry.size) for name, entry in found.items()} == {
        "below": ("folder", 0),
        "x": ("file", 1),
    }
    assert 0 <= time.time() - found["x"].modified < 60
    assert is_folder(folder) and exists(folder / "x") and not is_folder(folder / "x")
    assert not exists(storage / "absent")


def test_a_folder_and_what_is_in_it_may_have_one_name(storage):
    _fill(storage / "x", ["x", "y/y"])
    assert list_names(storage / "x") == ["x", "y"]
    assert list_names(storage / "x" / "y") == ["y"]


def test_links_to_nothing_and_to_themselves_hide_no_other_file(tmp_path):
    (tmp_path / "gone").symlink_to(tmp_path / "absent")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "x").write_text("x")
    assert list_names(tmp_path) == ["circle", "gone", "x"]
    assert [entry.kind for entry in entries(tmp_path).values()] == ["other", "other", "file"]


def test_a_checkpoint_that_is_set_aside_stays_one(bucket_path):
    _fill(bucket_path / "checkpoints" / "7", ["state/d", "_METADATA", "commit_success.txt"])
    move_folder(bucket_path / "checkpoints" / "7", bucket_path / "discarded" / "7_1")
    assert list_complete(bucket_path / "checkpoints") == []
    assert list_complete(bucket_path / "discarded") == ["7_1"]
    aside = bucket_path / "discarded" / "7_1"
    assert list_names(aside) == ["_METADATA", "commit_success.txt", "state"]
    assert list_names(aside / "state") == ["d"]


def test_what_makes_a_folder_whole_is_moved_last(bucket_path, monkeypatch):
    moved, move = [], CloudStorage.mv
    monkeypatch.setattr(CloudStorage, "mv", lambda self, a, b: moved.extend(a) or move(self, a, b))
    names = ["checkpoints/0/commit_success.txt", "checkpoints/0/state/d/0", "config.gin", "model"]
    with new_folder(bucket_path / "run") as unfinished:
        _fill(unfinished, names)
    order = [path.partition(".unfinished-")[2].partition("/")[2] for path in moved]
    assert sorted(order) == sorted(names)
    assert set(order[-2:]) == {"checkpoints/0/commit_success.txt", "config.gin"}


def test_a_copy_is_made_again_where_the_file_has_changed(bucket_path):
    file = bucket_path / "a.gin"
    for text in ("X = 1", "X = 2"):
        file.write_text(text)
        for _ in range(2):
            with open(local_copy(file)) as copy:
                assert copy.read() == text


def test_copies_of_files_are_there_for_a_while(storage, monkeypatch):
    monkeypatch.setattr(spool, "_READ", 3)
    files = [storage / "a" / "x.gz", storage / "b" / "x.gz"]
    for file, content in zip(files, (b"0123456", b""), strict=True):
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    with copies_here([str(file) for file in files]) as copies:
        assert [Path(copy).read_bytes() for copy in copies] == [b"0123456", b""]
        assert [Path(copy).name for copy in copies] == ["x.gz", "x.gz"]
    assert all(Path(copy).exists() == (not in_bucket(storage)) for copy in copies)


def test_a_copy_is_of_the_file_as_it_is_now(bucket_path):
    file = bucket_path / "x.gz"
    for content in (b"short", b"longer than before"):
        file.write_bytes(content)
        file_sizes([str(file)])  # remembers the first one
        for _ in range(2):
            assert Path(local_copy(file)).read_bytes() == content
        with copies_here([str(file)]) as (copy,):
            assert Path(copy).read_bytes() == content


def test_a_copy_that_finds_no_room_names_the_file(bucket_path, monkeypatch):
    (bucket_path / "x.gz").write_bytes(b"x")

    def open_nothing(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", open_nothing)
    with pytest.raises(OSError, match="No space left on device, in /") as error:
        with copies_here([str(bucket_path / "x.gz")]):
            pass
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, f"{bucket_path}/x.gz")
