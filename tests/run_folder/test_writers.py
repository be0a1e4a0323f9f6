import io
import json
import os

import numpy as np
import pytest
from etils import epath

from switch_jax.run_folder import (
    RunFolder,
    check_run_folder,
    create_run_folder,
    write_bad_batch,
    write_description,
)
from switch_jax.utils.errors import TransientError, UserError
from tests.trainer.helpers import random_batch, tiny_config, tiny_model

CONFIG = tiny_config(tiny_model())


def test_a_bad_batch_holds_the_rows_that_this_process_has(storage):
    whole, here = random_batch(8), [2, 3, 6]
    for name in ("encoder_input_tokens", "encoder_segment_ids"):
        whole[name][3] = 0  # an example may have targets alone
    partly = {name: np.zeros_like(array) for name, array in whole.items()}
    for name, array in partly.items():
        array[here] = whole[name][here]
    path = write_bad_batch(RunFolder(storage), 17, 0, partly)
    assert path == storage / "bad_batches" / "batch_17_process_0.npz"
    with np.load(io.BytesIO(path.read_bytes())) as written:  # refuses pickles by default
        assert set(written.files) == {"rows", *whole}
        np.testing.assert_array_equal(written["rows"], here)
        for name, array in whole.items():
            np.testing.assert_array_equal(written[name], array[here], err_msg=name)
            assert written[name].dtype == array.dtype


def test_a_run_is_described_with_the_checkpoint_that_it_started_from(tmp_path, capsys):
    folder, file = RunFolder(tmp_path), tmp_path / "run.json"

    def describe(start):
        write_description(folder, {"seed": 5}, start, CONFIG, "STEPS = 5\n")
        return json.loads(file.read_text())

    assert describe(None) == {"name": tmp_path.name, "seed": 5, "initial_checkpoint": None}
    assert describe(tmp_path / "7")["initial_checkpoint"] == f"{tmp_path}/7"
    assert describe(None)["initial_checkpoint"] is None
    describe(tmp_path / "7")
    assert (tmp_path / "config.gin").read_text() == "STEPS = 5\n"
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIG.settings()
    # From its first checkpoint on it starts from that.
    folder.checkpoint(3).mkdir(parents=True)
    assert describe(None)["initial_checkpoint"] == f"{tmp_path}/7"
    assert capsys.readouterr().out == ""
    for damage in ('{"initial_checkpoint": "/7", ', None, "{"):
        file.unlink() if damage is None else file.write_text(damage)
        for _ in range(2):  # it does not come back, nor is it taken for none
            assert describe(tmp_path / "8") == {"name": tmp_path.name, "seed": 5}
        (said,) = capsys.readouterr().out.splitlines()
        assert said.startswith(f"{file} is {'not there' if damage is None else 'damaged'}")
        assert said.endswith("which checkpoint the run began with is not known any more")
        assert (tmp_path / "run.json.damaged").read_text() == '{"initial_checkpoint": "/7", '


def test_a_description_that_cannot_be_read_is_not_written_anew(tmp_path):
    folder = RunFolder(tmp_path)
    folder.checkpoint(3).mkdir(parents=True)
    (tmp_path / "run.json").symlink_to("run.json")
    with pytest.raises(TransientError, match="run.json cannot be read: Too many levels of symb"):
        write_description(folder, {"seed": 5}, None, CONFIG, "STEPS = 5\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "run.json"]


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


@pytest.mark.parametrize("use", [create_run_folder, check_run_folder])
def test_a_folder_that_cannot_be_made_or_written_is_refused(use, tmp_path, gcs_server):
    (tmp_path / "file").touch()
    # Nobody makes a folder in /proc, whatever its permissions say.
    for folder in (f"{tmp_path}/file/run", "/proc/run", "gs://absent/run"):
        with pytest.raises(UserError, match=f"MODEL_DIR '{folder}' cannot be written: "):
            use(folder)


def test_a_folder_is_checked_and_not_made(tmp_path):
    check_run_folder(str(tmp_path / "a" / "b"))
    assert list(tmp_path.iterdir()) == []
