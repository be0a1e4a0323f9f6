"""One job for each folder of a disk: see also tests/checkpointing/test_lock.py."""

import fcntl
from types import SimpleNamespace

import pytest
from etils import epath

from switch_jax.storage import HeldError
from switch_jax.storage.locking import file_lock
from switch_jax.storage.locking.file_lock import FileLock


@pytest.fixture
def file(tmp_path):
    """The lock of a folder whose last job is gone."""
    file = epath.Path(tmp_path / "lock")
    FileLock(file).close()
    return file


@pytest.fixture
def pauses(monkeypatch):
    """Seconds that pass between tries; while they do, nothing but `pauses.action` happens."""
    found = SimpleNamespace(seconds=[], action=lambda: None)

    def sleep(seconds):
        found.seconds.append(seconds)
        found.action()

    monkeypatch.setattr(file_lock, "time", SimpleNamespace(sleep=sleep))
    return found


def test_a_start_waits_for_who_looks_whether_the_last_job_is_gone(file, pauses):
    with open(file, "rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)  # as `status`, in the moment before it closes the file
        pauses.action = looking.close
        lock = FileLock(file)
    assert len(pauses.seconds) == 1
    assert file_lock.stale_locker(file, file.read_bytes()) is None, "the start has it"
    lock.close()


def test_a_start_waits_no_longer_than_a_moment(file, pauses):
    lock = FileLock(file)
    with pytest.raises(HeldError, match="^process "):
        FileLock(file)
    assert 0.2 < sum(pauses.seconds) < 1
    lock.close()
