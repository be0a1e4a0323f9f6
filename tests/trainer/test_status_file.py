import contextlib
import errno
import json
import os

import pytest

from switch_jax.checkpointing import lock_run
from switch_jax.run_folder import RunFolder
from switch_jax.trainer import status_file
from switch_jax.trainer.signals import INTERRUPTED, PREEMPTED, Stopped
from switch_jax.trainer.status_file import StatusFile, record_early_failure
from switch_jax.utils.errors import UserError


def state_and_message(folder):
    facts = json.loads((folder / "status.json").read_text())
    assert facts["processes"] == 1
    assert facts["started"] <= facts["time"]
    return facts["state"], facts["message"]


def test_a_run_from_its_start_to_its_end(tmp_path):
    with StatusFile(RunFolder(tmp_path), active=True) as status:
        assert state_and_message(tmp_path) == ("starting", "")
        status.running()
        assert state_and_message(tmp_path) == ("running", "")
    assert state_and_message(tmp_path) == ("finished", "")


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
def test_how_a_run_ended_is_reported_and_goes_on_its_way(tmp_path, error, state, message):
    with pytest.raises(type(error)), StatusFile(RunFolder(tmp_path), active=True):
        raise error
    assert state_and_message(tmp_path)[0] == state
    assert state_and_message(tmp_path)[1].startswith(message)


def test_one_process_writes(tmp_path):
    with StatusFile(RunFolder(tmp_path), active=False) as status:
        status.running()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_reported_at_the_start_and_not_at_the_end(tmp_path):
    with pytest.raises(UserError, match="status.json cannot be written: No such file"):
        StatusFile(RunFolder(tmp_path / "absent"), active=True)
    folder = tmp_path / "run"
    folder.mkdir()
    with StatusFile(RunFolder(folder), active=True):
        (folder / "status.json").unlink()
        folder.rmdir()


@pytest.mark.parametrize("letter", ["\\", "文", "\x1b"])
def test_without_room_for_a_second_file_the_first_keeps_within_its_block(
    tmp_path, monkeypatch, letter
):
    def refuse(file, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ValueError), StatusFile(RunFolder(tmp_path), active=True):
        monkeypatch.setattr(status_file, "atomic_write", refuse)
        raise ValueError(f"the disk is full {letter * 5000}")
    state, message = state_and_message(tmp_path)
    shown = letter if letter.isascii() and letter.isprintable() else "?"
    assert state == "failed" and message.startswith(f"ValueError: the disk is full {shown * 20}")
    assert (tmp_path / "status.json").stat().st_size <= 512


@pytest.fixture
def crashed(tmp_path):
    """The folder of a run that was killed."""
    StatusFile(RunFolder(tmp_path), active=True).running()
    return tmp_path


def fail_early(folder):
    with pytest.raises(UserError, match="^no such task$"), record_early_failure(str(folder)):
        raise UserError("no such task")


def test_a_failure_before_the_run_has_begun_takes_the_place_of_running(crashed, monkeypatch):
    with record_early_failure(str(crashed)):
        pass
    assert state_and_message(crashed) == ("running", "")
    with contextlib.closing(lock_run(RunFolder(crashed))):
        fail_early(crashed)
    assert state_and_message(crashed) == ("running", ""), "as another job says"
    with monkeypatch.context() as second:
        second.setattr(status_file, "process_index_and_count", lambda: (1, 2))
        fail_early(crashed)
    assert state_and_message(crashed) == ("running", ""), "the first process writes"
    fail_early(crashed)
    assert state_and_message(crashed) == ("failed", "no such task")
    lock_run(RunFolder(crashed)).close()  # it is free again


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_a_start_that_is_refused_leaves_the_record_of_a_run_that_has_ended(tmp_path, state):
    record = json.dumps({"state": state, "message": "its own"})
    (tmp_path / "status.json").write_text(record)
    fail_early(tmp_path)
    assert (tmp_path / "status.json").read_text() == record


def test_an_early_failure_makes_no_folder_and_no_file(tmp_path, gcs_server):
    fail_early(tmp_path)
    fail_early(tmp_path / "absent")
    fail_early("gs://bucket/run")
    fail_early("gs://absent/run")
    assert list(tmp_path.iterdir()) == []
