import json

import pytest

from switch_jax.errors import UserError
from switch_jax.training.life import Life
from switch_jax.training.stopping import INTERRUPTED, PREEMPTED, Stopped


def told(folder):
    facts = json.loads((folder / "status.json").read_text())
    assert facts["processes"] == 1
    assert facts["started"] <= facts["time"]
    return facts["state"], facts["message"]


def test_a_run_from_its_start_to_its_end(tmp_path):
    with Life(tmp_path, active=True) as life:
        assert told(tmp_path) == ("starting", "")
        life.running()
        assert told(tmp_path) == ("running", "")
    assert told(tmp_path) == ("finished", "")


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (Stopped(PREEMPTED, 7), "stopped", "asked to terminate: the state of step 7 is saved"),
        (Stopped(INTERRUPTED, 7), "stopped", "interrupted: the state of step 7 is saved"),
        (KeyboardInterrupt(), "stopped", "KeyboardInterrupt"),
        (UserError("the disk is full"), "failed", "the disk is full"),
        (ValueError("no such\nshape"), "failed", "ValueError: no such"),
    ],
)
def test_how_a_run_ended_is_told_and_goes_on_its_way(tmp_path, error, state, message):
    with pytest.raises(type(error)), Life(tmp_path, active=True):
        raise error
    assert told(tmp_path)[0] == state
    assert told(tmp_path)[1].startswith(message)


def test_one_process_writes(tmp_path):
    with Life(tmp_path, active=False) as life:
        life.running()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told_at_the_start_and_not_at_the_end(tmp_path):
    with pytest.raises(UserError, match="status.json cannot be written: No such file"):
        Life(tmp_path / "absent", active=True)
    folder = tmp_path / "run"
    folder.mkdir()
    with Life(folder, active=True):
        (folder / "status.json").unlink()
        folder.rmdir()
