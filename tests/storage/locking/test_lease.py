"""One job for each folder of a bucket. A minute passes as soon as somebody waits for it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import types

import pytest

from switch_jax.storage import (
    HeldError,
    LostLeaseError,
    appended_file,
    atomic_write,
    hold,
)
from switch_jax.storage.locking import lease as lease_module
from switch_jax.storage.locking.conditional_writes import SharedObject
from switch_jax.storage.locking.lease import LEASE_SECONDS, Lease
from tests.waiting import HANGS


class Clock:
    """The time of all hosts, in which holders renew their leases; it passes while one sleeps."""

    def __init__(self):
        self.time, self.slept, self._holders = 1000.0, 0.0, []

    def __call__(self):
        return self.time

    def sleep(self, seconds):
        self.slept += seconds
        self.time += seconds
        for lease in self._holders:
            if self.time - lease._renewed >= LEASE_SECONDS / 4:
                lease._renew()

    def lease(self, folder, renewed=True, ahead=0.0):
        """A lease by this time, or by a host's clock that is ahead of it."""
        lease = Lease(folder, "lock", clock=lambda: self.time + ahead)
        if renewed:
            self._holders.append(lease)
        return lease


@pytest.fixture
def clock(monkeypatch):
    """Each lease of this process is held by a host of its own, as far as others can see."""
    clock = Clock()
    monkeypatch.setattr(lease_module, "time", types.SimpleNamespace(sleep=clock.sleep))
    monkeypatch.setattr(Lease, "_keep", lambda self: None)  # it takes real time
    monkeypatch.setattr(lease_module._Holder, "is_gone", lambda self: False)
    monkeypatch.setattr(Lease, "covers", lambda self, path: False)
    yield clock
    for lease in list(lease_module._held):
        lease.close()


def _holds(lease):
    lease.check()
    return True


def test_a_process_has_a_folder_once(bucket_path):
    with contextlib.closing(hold(bucket_path / "lock")):
        for folder in (bucket_path, bucket_path / "below"):
            with pytest.raises(HeldError):
                hold(folder / "lock")
    hold(bucket_path / "lock").close()


def test_a_start_that_does_not_wait_leaves_a_lease_alone(bucket_path, clock):
    clock.lease(bucket_path, renewed=False)
    with pytest.raises(HeldError):
        Lease(bucket_path, "lock", clock=clock, wait=False)
    assert clock.slept == 0


def test_a_second_job_is_refused_whatever_its_clock_and_told_who_has_it(bucket_path, clock):
    first = clock.lease(bucket_path)
    with pytest.raises(HeldError, match=rf"process {os.getpid()} on "):
        clock.lease(bucket_path, ahead=300.0)
    assert _holds(first)
    first.close()
    slept = clock.slept
    clock.lease(bucket_path)
    assert clock.slept == slept, "it is free at once"


def test_a_lease_is_renewed_until_it_is_closed(bucket_path, monkeypatch):
    renewals = threading.Semaphore(0)
    monkeypatch.setattr(Lease, "_renew", lambda self: renewals.release())
    lease = Lease(bucket_path, "lock", seconds=0.04, clock=lambda: 0.0)
    assert renewals.acquire(timeout=HANGS) and renewals.acquire(timeout=HANGS)
    lease.close()
    assert not lease._thread.is_alive()


def test_of_two_that_start_at_once_one_is_refused(bucket_path, clock, monkeypatch):
    read = SharedObject.read
    others = []

    def read_and_be_overtaken(self):
        found = read(self)
        if not others:
            others.append(None)
            others[0] = clock.lease(bucket_path)
        return found

    monkeypatch.setattr(SharedObject, "read", read_and_be_overtaken)
    with pytest.raises(HeldError, match=rf"process {os.getpid()} on "):
        clock.lease(bucket_path)
    assert _holds(others[0])


def test_the_lease_of_a_host_that_is_gone_is_taken_over_when_it_has_expired(
    bucket_path, clock, capfd
):
    clock.lease(bucket_path, renewed=False)
    second = clock.lease(bucket_path)
    assert LEASE_SECONDS <= clock.slept < LEASE_SECONDS + 2
    assert "waiting 60 s at most to see whether process" in capfd.readouterr().err
    assert _holds(second)


def test_a_holder_that_was_stopped_writes_nothing_when_it_wakes_up(bucket_path, clock):
    stopped = clock.lease(bucket_path, renewed=False)
    log = appended_file(bucket_path / "log")
    log.append(b"before\n")
    second = clock.lease(bucket_path)
    clock.time += 600.0
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


def test_a_holder_that_was_stopped_goes_on_where_nobody_has_taken_over(bucket_path, clock):
    lease = clock.lease(bucket_path, renewed=False)
    clock.time += 600.0
    assert _holds(lease)


HOLDER = """
import sys
from switch_jax.storage import hold, storage_path
lease = hold(storage_path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_killed_process_of_this_host_is_known_to_be_gone(bucket_path, monkeypatch):
    file = bucket_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(file)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGKILL)
    clock = Clock()
    monkeypatch.setattr(lease_module, "time", types.SimpleNamespace(sleep=clock.sleep))
    Lease(bucket_path, "lock", clock=clock).close()
    assert clock.slept == 0
