import errno
from pathlib import Path

import pytest

from switch_jax.errors import TransientError, UserError
from switch_jax.storage import atomic_write, explain_write_errors, new_folder, open_atomic
from switch_jax.storage.cloud_storage import CloudStorage


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.EROFS, UserError, "^here/x cannot be written: words$"),
        (errno.ESTALE, TransientError, "^here/x cannot be written: words; this may pass: start a"),
    ],
)
def test_an_error_of_writing_names_the_file(number, kind, message):
    with pytest.raises(UserError, match=message) as error, explain_write_errors(Path("here/x")):
        raise OSError(number, "words")
    assert type(error.value) is kind


def test_an_atomic_write_replaces_the_file_and_leaves_nothing_else(storage):
    file = storage / "x.json"
    for text in ("first", "s\u00e9cond"):
        atomic_write(file, text)
        assert file.read_text() == text
    assert _names(storage) == ["x.json"]


def test_an_error_within_leaves_the_old_file_and_nothing_else(storage):
    file = storage / "x.json"
    file.write_text("old")
    with pytest.raises(KeyError), open_atomic(file) as new:
        new.write(b"half of the n")
        raise KeyError
    assert file.read_text() == "old"
    assert _names(storage) == ["x.json"]


def _names(folder):
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def test_what_a_killed_job_has_moved_of_a_folder_is_named(bucket_path):
    for name in ("run", "whole"):
        (bucket_path / f".{name}.unfinished-1" / "config.gin").write_text("")
        (bucket_path / name / "spiece.model").write_text("")
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
        for name in "abc":
            (unfinished / name).write_text(name)
    assert _names(bucket_path / "run") == ["a", "c"]
    assert _names(unfinished) == ["b"]
    with pytest.raises(UserError, match="remove both$"), new_folder(bucket_path / "run"):
        pass


def test_a_new_folder_is_whole_or_not_there(storage):
    folder = storage / "above" / "folder"
    with pytest.raises(KeyError), new_folder(folder) as unfinished:
        (unfinished / "half").write_text("x")
        raise KeyError
    assert _names(folder.parent) == []
    with new_folder(folder) as unfinished:
        (unfinished / "whole").write_text("x")
        assert not folder.exists()
    assert _names(folder) == ["whole"]
    assert _names(folder.parent) == ["folder"]
    for taken in (folder, folder / "whole"):
        with pytest.raises(UserError, match="is there already: name a folder"), new_folder(taken):
            pass
    (folder.parent / "empty").mkdir()  # nothing, in a bucket
    with new_folder(folder.parent / "empty") as unfinished:
        (unfinished / "x").write_text("x")
    assert (folder.parent / "empty" / "x").exists()


@pytest.mark.parametrize("is_there", [True, False])
def test_a_new_folder_comes_where_a_link_leads(is_there, tmp_path):
    if is_there:
        (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    with new_folder(tmp_path / "link") as unfinished:
        (unfinished / "x").write_text("x")
    assert (tmp_path / "elsewhere" / "x").read_text() == "x"
    assert (tmp_path / "link").is_symlink()
