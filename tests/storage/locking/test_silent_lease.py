"""What the holder of a lease says where the storage does not answer, or answers late."""

import errno

import pytest
from etils import epath

from switch_jax.storage import LostLeaseError
from switch_jax.storage.locking import lease as lease_module
from switch_jax.storage.locking.conditional_writes import Version
from switch_jax.storage.locking.lease import Lease

FOLDER = epath.Path("gs://bucket/run")


class Storage:
    """Stands for the object of a lease: each write takes the next of `answers`, and its seconds."""

    def __init__(self):
        self.time, self.answers = 0.0, [(0.0, Version(b"", 1))]

    def read(self):
        return Version()

    def write(self, content, last):
        seconds, answer = self.answers.pop(0)
        self.time += seconds
        if isinstance(answer, OSError):
            raise answer
        return answer


@pytest.fixture
def storage(monkeypatch):
    storage = Storage()
    monkeypatch.setattr(lease_module, "SharedObject", lambda path: storage)
    monkeypatch.setattr(Lease, "_keep", lambda self: None)
    yield storage
    lease_module._held.clear()


@pytest.fixture
def lease(storage):
    """A lease that is nearly over."""
    lease = Lease(FOLDER, "lock", clock=lambda: storage.time)
    storage.time = 50.0
    return lease


def test_a_silent_storage_is_told_from_another_job(storage, lease):
    storage.answers = [(600.0, OSError(errno.EIO, "Cloud Storage: no answer"))]
    with pytest.raises(LostLeaseError) as error:
        lease.check()
    assert str(error.value) == (
        "gs://bucket/run: this job could not renew its lease for 60 s (Cloud Storage: no answer): "
        "it writes nothing more there; start again"
    )
    storage.answers = [(0.0, None)]  # somebody has changed the object
    for _ in range(2):
        with pytest.raises(LostLeaseError, match=r"run: another job has taken it over, since this"):
            lease.check()


def test_a_renewal_whose_answer_came_late_is_made_again(storage, lease):
    storage.answers = [(180.0, Version(b"", 2)), (0.1, Version(b"", 3))]
    lease.check()
    assert storage.answers == [] and not lease.needs_check
