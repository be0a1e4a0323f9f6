import io
import json
import os

import numpy as np
import pytest
from etils import epath

from switch_jax.errors import UserError
from switch_jax.run_folder import (
    RunFolder,
    check_run_folder,
    create_run_folder,
    write_bad_batch,
    write_description,
)
from tests.trainer.helpers import random_batch, tiny_config, tiny_model

CONFIG = tiny_config(tiny_model())


def _batch_of_one_process(here):
    """The whole batch, and what a process has of it: zeros in the rows of others."""
    whole = random_batch(8)
    partly = {name: array.copy() for name, array in whole.items()}
    for array in partly.values():
        array[[row for row in range(8) if row not in here]] = 0
    return whole, partly


def test_a_bad_batch_holds_the_rows_that_this_process_has(storage):
    here = [2, 3, 6]
    whole, partly = _batch_of_one_process(here)
    path = write_bad_batch(RunFolder(storage), 17, 0, partly)
    assert path == storage / "bad_batches" / "batch_17_process_0.npz"
    with np.load(io.BytesIO(path.read_bytes())) as written:  # refuses pickles by default
        assert set(written.files) == {"rows", *whole}
        np.testing.assert_array_equal(written["rows"], here)
        for name, array in whole.items():
            np.testing.assert_array_equal(written[name], array[here], err_msg=name)
            assert written[name].dtype == array.dtype


@pytest.mark.parametrize("text", ["[1]", "{}", "{"])
def test_a_damaged_run_json_is_reported_and_written_anew(tmp_path, capsys, text):
    folder, file = RunFolder(tmp_path), tmp_path / "run.json"
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    file.write_text('{"initial_checkpoint": "/a/b"}')
    write_description(folder, {"seed": 5}, None, CONFIG, "")
    described = {"name": tmp_path.name, "seed": 5, "initial_checkpoint": "/a/b"}
    assert json.loads(file.read_text()) == described
    assert capsys.readouterr().out == ""
    file.write_text(text)
    write_description(folder, {"seed": 5}, None, CONFIG, "")
    assert json.loads(file.read_text()) == {**described, "initial_checkpoint": None}
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith(f"{tmp_path}/run.json is damaged, and is written anew")


def test_a_folder_is_made_with_those_above_it_and_left_empty(tmp_path):
    folder = create_run_folder(str(tmp_path / "a" / "b"))
    assert folder == create_run_folder(str(folder)) == RunFolder(tmp_path / "a" / "b")
    assert list(folder.path.iterdir()) == []


def test_no_two_processes_try_a_folder_by_the_same_file(tmp_path, monkeypatch):
    written, write = [], epath.Path.write_bytes
    monkeypatch.setattr(os, "getpid", lambda: 1)  # as in containers
    monkeypatch.setattr(
        epath.Path, "write_bytes", lambda path, data: written.append(path) or write(path, data)
    )
    create_run_folder(str(tmp_path))
    create_run_folder(str(tmp_path))
    assert len({path.name for path in written}) == 2


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="MODEL_DIR '.*file/run' cannot be written: Not a dir"):
        create_run_folder(str(tmp_path / "file" / "run"))


def test_a_bucket_that_is_not_there_is_reported(gcs_server):
    for use in (create_run_folder, check_run_folder):
        with pytest.raises(UserError, match="MODEL_DIR 'gs://absent/run' cannot be written: "):
            use("gs://absent/run")


def test_a_folder_that_cannot_be_made_is_known_before(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="MODEL_DIR '.*/run' cannot be written: Not a dir"):
        check_run_folder(str(tmp_path / "file" / "run"))
    with pytest.raises(UserError, match="MODEL_DIR '/proc/run' cannot be written: "):
        check_run_folder("/proc/run")  # nobody makes a folder there, whatever its permissions say
    check_run_folder(str(tmp_path / "a" / "b"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_new_run_is_described_with_the_checkpoint_that_it_starts_from(tmp_path):
    folder = RunFolder(tmp_path)
    write_description(folder, {}, tmp_path / "other/checkpoints/7", CONFIG, "STEPS = 5\n")
    described = json.loads((tmp_path / "run.json").read_text())
    assert described["initial_checkpoint"] == f"{tmp_path}/other/checkpoints/7"
    write_description(folder, {}, None, CONFIG, "STEPS = 5\n")
    assert json.loads((tmp_path / "run.json").read_text())["initial_checkpoint"] is None
    assert (tmp_path / "config.gin").read_text() == "STEPS = 5\n"
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIG.settings()
