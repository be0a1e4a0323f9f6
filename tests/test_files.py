import errno
from pathlib import Path

import pytest

from switch_jax.errors import TransientError, UserError
from switch_jax.files import atomic_write, explain_write_errors, new_folder, open_atomic


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


def test_an_atomic_write_replaces_the_file_and_leaves_nothing_else(tmp_path):
    file = tmp_path / "x.json"
    for text in ("first", "s\u00e9cond"):
        atomic_write(file, text)
        assert file.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [file]


def test_an_error_within_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "x.json"
    file.write_text("old")
    with pytest.raises(KeyError), open_atomic(file) as new:
        new.write(b"half of the n")
        raise KeyError
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_new_folder_is_whole_or_not_there(tmp_path):
    folder = tmp_path / "above" / "folder"
    with pytest.raises(KeyError), new_folder(folder) as unfinished:
        (unfinished / "half").touch()
        raise KeyError
    assert list(folder.parent.iterdir()) == []
    with new_folder(folder) as unfinished:
        (unfinished / "whole").touch()
        assert not folder.exists()
    assert [path.name for path in folder.iterdir()] == ["whole"]
    assert list(folder.parent.iterdir()) == [folder]
    for taken in (folder, folder / "whole"):
        with pytest.raises(UserError, match="is there already: name a folder"), new_folder(taken):
            pass
    (folder.parent / "empty").mkdir()
    with new_folder(folder.parent / "empty") as unfinished:
        (unfinished / "x").touch()
    assert (folder.parent / "empty" / "x").exists()
