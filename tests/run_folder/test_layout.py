import pytest
from etils import epath

from switch_jax.errors import UserError
from switch_jax.run_folder import RunFolder, checkpoint_steps


def test_a_local_folder_is_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert RunFolder.at("runs/mine").path == epath.Path(tmp_path / "runs/mine")
    assert RunFolder.at("~/runs").path == epath.Path("/home/me/runs")


def test_a_folder_that_cannot_be_is_refused():
    with pytest.raises(UserError, match="^MODEL_DIR 'ftp://bucket/x': write a path"):
        RunFolder.at("ftp://bucket/x")


def test_a_bucket_is_read_without_a_mount():
    folder = RunFolder.at("gs://bucket/runs")
    assert str(folder.metrics) == "gs://bucket/runs/metrics.jsonl"
    assert str(folder.checkpoint(12)) == "gs://bucket/runs/checkpoints/12"


def test_the_steps_of_complete_checkpoints_ascend(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.checkpoint_steps() == []
    for name in ("90", "100", "110.orbax-checkpoint-tmp", "9_copy"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert folder.checkpoint_steps() == [90, 100]
    assert RunFolder.at(tmp_path).checkpoint_steps() == [90, 100]
    assert checkpoint_steps([]) == []


def test_in_a_bucket_a_checkpoint_is_complete_when_its_last_file_is_there(bucket_path):
    folder = RunFolder(bucket_path)
    assert folder.checkpoint_steps() == []
    for step in (90, 100, 110):
        (folder.checkpoint(step) / "state" / "x").write_text("x")
    for step in (90, 100):
        (folder.checkpoint(step) / "commit_success.txt").write_text("")
    assert folder.checkpoint_steps() == [90, 100]
