"""Files and folders that are whole or not there, on a disk and in a bucket."""

import errno

import pytest

from switch_jax.storage import (
    RETRIES,
    atomic_write,
    list_complete,
    list_names,
    move_folder,
    new_folder,
    open_atomic,
    writing,
)
from switch_jax.storage.cloud_storage import CloudStorage
from switch_jax.utils.errors import TransientError, UserError
from tests.storage.slow_proxy import Faults


def _fill(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_a_file_is_replaced_as_a_whole_or_not_at_all(storage):
    file = storage / "x.json"
    for text in ("first", "s\u00e9cond"):
        atomic_write(file, text)
        assert file.read_text() == text
    with pytest.raises(KeyError), open_atomic(file) as new:
        new.write(b"half of the n")
        raise KeyError
    assert file.read_text() == "s\u00e9cond"
    assert list_names(storage) == ["x.json"]


def test_what_a_killed_job_has_moved_of_a_folder_is_named(bucket_path):
    for name in ("run", "whole"):
        _fill(bucket_path, [f".{name}.unfinished-1/config.gin", f"{name}/spiece.model"])
    (bucket_path / "whole" / "config.gin").write_text("")
    killed = r"run is there already: .* one; \.run\.unfinished-1 beside it is .* remove both$"
    for folder, message in (("run", killed), ("whole", "already: .* empty one$")):
        with pytest.raises(UserError, match=message), new_folder(bucket_path / folder):
            pass


def test_of_a_folder_that_cannot_be_moved_to_its_end_nothing_is_removed(bucket_path, monkeypatch):
    move = CloudStorage._mv_file

    async def move_all_but_one(files, source, target, **options):
        if source.endswith("/b"):
            raise OSError(errno.EIO, "Cloud Storage: no answer")
        await move(files, source, target, **options)

    monkeypatch.setattr(CloudStorage, "_mv_file", move_all_but_one)
    with pytest.raises(TransientError), new_folder(bucket_path / "run") as unfinished:
        _fill(unfinished, "abc")
    assert list_names(bucket_path / "run") == ["a", "c"]
    assert list_names(unfinished) == ["b"]


def test_a_new_folder_is_whole_or_not_there(storage):
    folder = storage / "above" / "folder"
    with pytest.raises(KeyError), new_folder(folder) as unfinished:
        (unfinished / "half").write_text("x")
        raise KeyError
    assert list_names(folder.parent) == []
    with new_folder(folder) as unfinished:
        (unfinished / "whole").write_text("x")
        assert not folder.exists()
    assert list_names(folder) == ["whole"]
    assert list_names(folder.parent) == ["folder"]
    for taken in (folder, folder / "whole"):
        with pytest.raises(UserError, match="is there already: name a folder"), new_folder(taken):
            pass
    (folder.parent / "empty").mkdir()  # nothing, in a bucket
    with new_folder(folder.parent / "empty") as unfinished:
        (unfinished / "x").write_text("x")
    assert (folder.parent / "empty" / "x").exists()


def test_of_two_jobs_that_write_one_folder_the_second_to_end_is_refused(storage):
    folder = storage / "run"
    refused = pytest.raises(UserError, match="run (is there already: another job|.*not empty)")
    with refused, new_folder(folder) as second:
        (second / "x").write_text("second")
        with new_folder(folder) as first:
            (first / "y").write_text("first")
    assert list_names(folder) == ["y"]
    assert list_names(storage) == ["run"]


def test_while_one_job_moves_its_files_another_is_refused(bucket_path):
    with writing._claimed(bucket_path):
        with pytest.raises(UserError, match="is there already: another job has written it meanwh"):
            with writing._claimed(bucket_path):
                pass
        assert list_names(bucket_path), "the first still has it"
    assert list_names(bucket_path) == []


def test_a_claim_whose_answer_was_lost_is_this_jobs(bucket_path, faulty_storage, monkeypatch):
    monkeypatch.setattr(type(RETRIES), "waiting_times", lambda self: iter([0.0]))
    faults = faulty_storage.num_faults
    faulty_storage.faults = Faults(["lost"], of="^POST .*ifGenerationMatch=0")
    with new_folder(bucket_path / "run") as unfinished:
        (unfinished / "x").write_text("x")
    assert list_names(bucket_path / "run") == ["x"]
    assert faulty_storage.num_faults == faults + 1


def test_a_new_folder_comes_where_a_link_leads(tmp_path):
    (tmp_path / "link").symlink_to("elsewhere")
    with new_folder(tmp_path / "link") as unfinished:
        (unfinished / "x").write_text("x")
    assert (tmp_path / "elsewhere" / "x").read_text() == "x"
    assert (tmp_path / "link").is_symlink()


def test_a_checkpoint_that_is_set_aside_stays_one(bucket_path):
    _fill(bucket_path / "checkpoints" / "7", ["state/d", "_METADATA", "commit_success.txt"])
    move_folder(bucket_path / "checkpoints" / "7", bucket_path / "discarded" / "7_1")
    assert list_complete(bucket_path / "checkpoints") == []
    assert list_complete(bucket_path / "discarded") == ["7_1"]
    aside = bucket_path / "discarded" / "7_1"
    assert list_names(aside) == ["_METADATA", "commit_success.txt", "state"]


def test_what_makes_a_folder_whole_is_moved_last(bucket_path, monkeypatch):
    moved, move = [], CloudStorage.mv
    monkeypatch.setattr(CloudStorage, "mv", lambda self, a, b: moved.extend(a) or move(self, a, b))
    names = ["checkpoints/0/commit_success.txt", "checkpoints/0/state/d/0", "config.gin", "model"]
    with new_folder(bucket_path / "run") as unfinished:
        _fill(unfinished, names)
    order = [path.partition(".unfinished-")[2].partition("/")[2] for path in moved]
    assert sorted(order) == sorted(names)
    assert set(order[-2:]) == {"checkpoints/0/commit_success.txt", "config.gin"}
