"""One job for each folder of a bucket. Short leases stand for those of a minute."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from switch_jax.storage import (
    HeldError,
    LostLeaseError,
    appended_file,
    atomic_write,
    hold,
)
from switch_jax.storage.locking import lease as lease_module
from switch_jax.storage.locking.conditional import SharedObject
from switch_jax.storage.locking.lease import Lease

SECONDS = 1.0


class Clock:
    """Real time, and what a test adds to it."""

    def __init__(self, ahead=0.0):
        self.ahead = ahead

    def __call__(self):
        return time.monotonic() + self.ahead


@pytest.fixture(autouse=True)
def other_host(monkeypatch):
    """Each lease of this process is held by a host of its own, as far as others can see."""
    monkeypatch.setattr(lease_module._Holder, "is_gone", lambda self: False)
    monkeypatch.setattr(lease_module.Lease, "covers", lambda self, path: False)
    yield
    lease_module._held.clear()


def _holds(lease):
    lease.check()
    return True


def _stopped(folder, clock=time.monotonic):
    """A lease that is renewed no more."""
    lease = Lease(folder, "lock", SECONDS, clock)
    lease._closing.set()
    lease._thread.join()
    return lease


def test_a_process_has_a_folder_once(bucket_path, monkeypatch):
    monkeypatch.undo()  # the real functions
    with contextlib.closing(hold(bucket_path / "lock")):
        for folder in (bucket_path, bucket_path / "below"):
            with pytest.raises(HeldError):
                hold(folder / "lock")
    hold(bucket_path / "lock").close()


def test_a_start_that_does_not_wait_leaves_a_lease_alone(bucket_path):
    gone = Lease(bucket_path, "lock", 60.0)
    start = time.monotonic()
    with pytest.raises(HeldError):
        Lease(bucket_path, "lock", wait=False)
    assert time.monotonic() - start < 5
    gone.close()


def test_a_second_job_is_refused_whatever_its_clock_and_told_who_has_it(bucket_path):
    first = Lease(bucket_path, "lock", SECONDS)
    with pytest.raises(HeldError, match=rf"process {os.getpid()} on "):
        Lease(bucket_path, "lock", SECONDS, clock=Clock(ahead=300.0))
    assert _holds(first)
    first.close()
    Lease(bucket_path, "lock", SECONDS).close()  # at once


def test_of_two_that_start_at_once_one_is_refused(bucket_path, monkeypatch):
    read = SharedObject.read
    others = []

    def read_and_be_overtaken(self):
        found = read(self)
        if not others:
            others.append(None)
            others[0] = Lease(bucket_path, "lock", SECONDS)
        return found

    monkeypatch.setattr(SharedObject, "read", read_and_be_overtaken)
    with pytest.raises(HeldError, match=rf"process {os.getpid()} on "):
        Lease(bucket_path, "lock", SECONDS)
    assert _holds(others[0])
    others[0].close()


def test_the_lease_of_a_host_that_is_gone_is_taken_over_when_it_has_expired(bucket_path, capfd):
    _stopped(bucket_path)
    start = time.monotonic()
    second = Lease(bucket_path, "lock", SECONDS)
    assert time.monotonic() - start >= SECONDS
    assert "waiting 1 s at most to see whether process" in capfd.readouterr().err
    assert _holds(second)
    second.close()


def test_a_holder_that_was_stopped_writes_nothing_when_it_wakes_up(bucket_path, monkeypatch):
    clock = Clock()
    stopped = _stopped(bucket_path, clock)
    log = appended_file(bucket_path / "log")
    log.append(b"before\n")
    second = Lease(bucket_path, "lock", SECONDS)
    clock.ahead = 600.0
    file = bucket_path / "x"
    for write in (
        lambda: log.append(b"after\n"),
        lambda: atomic_write(file, "x"),
        lambda: file.write_text("x"),  # as Orbax commits a checkpoint
        lambda: (bucket_path / "log").unlink(),
    ):
        with pytest.raises(LostLeaseError, match="another job has taken it over, since this"):
            write()
    assert (bucket_path / "log").read_bytes() == b"before\n"
    assert not file.exists()
    assert _holds(second)
    stopped.close()  # leaves the other's alone
    assert _holds(second)
    file.write_text("x")  # and this process may write again
    second.close()


def test_a_holder_that_was_stopped_goes_on_where_nobody_has_taken_over(bucket_path):
    clock = Clock()
    lease = _stopped(bucket_path, clock)
    clock.ahead = 600.0
    assert _holds(lease)
    lease.close()


HOLDER = """
import sys, time
from switch_jax.storage import hold, storage_path
lease = hold(storage_path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_killed_process_of_this_host_is_known_to_be_gone(bucket_path, monkeypatch):
    monkeypatch.undo()  # the real functions
    file = bucket_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGKILL)
    start = time.monotonic()
    Lease(bucket_path, "lock").close()
    assert time.monotonic() - start < 10
