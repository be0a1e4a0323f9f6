from pathlib import Path

import pytest

from switch_jax import paths
from switch_jax.errors import UserError
from switch_jax.run_folder import RunFolder, checkpoint_steps, checkpoints_url


def test_a_local_folder_is_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert RunFolder.local("runs/mine").path == tmp_path / "runs/mine"
    assert RunFolder.local("~/runs").path == Path("/home/me/runs")
    monkeypatch.setattr(paths.os.path, "ismount", lambda path: True)
    assert RunFolder.local("gs://bucket/runs").path == Path("/gcs/bucket/runs")


def test_a_folder_that_cannot_be_is_refused():
    with pytest.raises(UserError, match="^MODEL_DIR 's3://bucket/x': write a path"):
        RunFolder.local("s3://bucket/x")


def test_a_bucket_is_read_without_a_mount():
    folder = RunFolder.from_url("gs://bucket/runs")
    assert str(folder.metrics) == "gs://bucket/runs/metrics.jsonl"
    assert str(folder.checkpoint(12)) == "gs://bucket/runs/checkpoints/12"


def test_the_steps_of_complete_checkpoints_ascend(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.checkpoint_steps() == []
    for name in ("90", "100", "110.orbax-checkpoint-tmp", "9_copy"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert folder.checkpoint_steps() == [90, 100]
    assert RunFolder.from_url(tmp_path).checkpoint_steps() == [90, 100]
    assert checkpoint_steps([]) == []


@pytest.mark.parametrize("model_dir", ["gs://bucket/runs/mine", "gs://bucket/runs/mine/"])
def test_the_url_of_checkpoints_ends_with_one_slash(model_dir):
    assert checkpoints_url(model_dir) == "gs://bucket/runs/mine/checkpoints/"


def test_files_of_hanging_processes_are_found_among_others(tmp_path):
    folder = RunFolder(tmp_path)
    for path in (folder.hanging_process(3), folder.hanging_process(0), folder.lock):
        path.touch()
    (tmp_path / "hanging_process_1.txt.swp").touch()
    assert folder.hanging_processes() == [folder.hanging_process(0), folder.hanging_process(3)]
