import os
from pathlib import Path

import numpy as np
import pytest

from switch_jax.errors import UserError
from switch_jax.trainer.folder import _initial_checkpoint, make_folder, write_bad_batch
from tests.trainer.helpers import random_batch


def _batch_of_one_process(here):
    """The whole batch, and what a process has of it: zeros in the rows of others."""
    whole = random_batch(8)
    partly = {name: array.copy() for name, array in whole.items()}
    for array in partly.values():
        array[[row for row in range(8) if row not in here]] = 0
    return whole, partly


def test_a_bad_batch_holds_the_rows_that_this_process_has(tmp_path):
    here = [2, 3, 6]
    whole, partly = _batch_of_one_process(here)
    path = write_bad_batch(tmp_path, 17, partly)
    assert path == tmp_path / "bad_batches" / "batch_17_process_0.npz"
    with np.load(path) as written:  # refuses pickles by default
        assert set(written.files) == {"rows", *whole}
        np.testing.assert_array_equal(written["rows"], here)
        for name, array in whole.items():
            np.testing.assert_array_equal(written[name], array[here], err_msg=name)
            assert written[name].dtype == array.dtype


@pytest.mark.parametrize("text", ["[1]", "null", "5", '{"initial_checkpoint": 5}', "{", "[" * 9**6])
def test_a_run_json_of_another_type_is_said_and_left_behind(tmp_path, capsys, text):
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    (tmp_path / "run.json").write_text('{"initial_checkpoint": "/a/b"}')
    assert _initial_checkpoint(tmp_path, None) == "/a/b"
    assert capsys.readouterr().out == ""
    (tmp_path / "run.json").write_text(text)
    assert _initial_checkpoint(tmp_path, None) is None
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith(f"{tmp_path}/run.json is damaged, and is written anew")


def test_a_bad_batch_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "bad_batches").touch()
    with pytest.raises(UserError, match=r"batch_3_process_0.npz cannot be written: (Not|File)"):
        write_bad_batch(tmp_path, 3, random_batch(4))


def test_a_folder_is_made_with_those_above_it_and_left_empty(tmp_path):
    folder = make_folder(str(tmp_path / "a" / "b"))
    assert folder == make_folder(str(folder)) == tmp_path / "a" / "b"
    assert list(folder.iterdir()) == []


def test_no_two_processes_try_a_folder_by_the_same_file(tmp_path, monkeypatch):
    touched, touch = [], Path.touch
    monkeypatch.setattr(os, "getpid", lambda: 1)  # as in containers
    monkeypatch.setattr(Path, "touch", lambda path: touched.append(path) or touch(path))
    make_folder(str(tmp_path))
    make_folder(str(tmp_path))
    assert len({path.name for path in touched}) == 2


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="MODEL_DIR '.*file/run' cannot be written: Not a dir"):
        make_folder(str(tmp_path / "file" / "run"))
    with pytest.raises(UserError, match="MODEL_DIR 'gs://bucket/run': the bucket is not mo"):
        make_folder("gs://bucket/run")
