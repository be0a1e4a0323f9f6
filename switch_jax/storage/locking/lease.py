"""Leases of folders in buckets, and `hold`, which takes a lease or locks a file on a disk.

The holder of a lease renews an object in the folder, on the condition that nobody else has written
it. A job that sees it unchanged for `LEASE_SECONDS` takes it over on the same condition. A holder
that could not renew it in time begins no write any more: Cloud Storage's client checks that before
each request that writes.
"""

import contextlib
import functools
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import NamedTuple

from etils import epath

from switch_jax.storage.locking.conditional_writes import SharedObject, Version
from switch_jax.storage.locking.file_lock import FileLock, HeldError, process_name, stale_locker
from switch_jax.storage.paths import in_bucket
from switch_jax.utils.errors import TransientError
from switch_jax.utils.json_text import parse_json
from switch_jax.utils.terminal import say

LEASE_SECONDS = 60.0
_RENEWALS = 4  # in that time
_CLOSING_SECONDS = 5.0  # for a renewal that is under way
_MARGIN = 0.75  # of the time after a renewal in which its holder writes

_held: set["Lease"] = set()

# A forked child does not renew what its parent holds.
os.register_at_fork(after_in_child=_held.clear)


class _Holder(NamedTuple):
    """The process that has the lease, "" for none, and the boot of its machine."""

    name: str = ""
    boot: str = ""

    @staticmethod
    def read(content: bytes | None) -> "_Holder":
        if not content:
            return _Holder()
        try:
            found = parse_json(content)
            return _Holder(str(found["name"]), found["boot"])
        except (ValueError, KeyError, TypeError):  # something else has written it
            return _Holder("an unknown process")

    def is_gone(self) -> bool:
        """Says whether the holder was a process of this host that has ended."""
        host = f" on {socket.gethostname()}"
        if self.boot != _boot() or not self.name.endswith(host):
            return False
        if self.name == process_name():  # a container's process may have the number of its last
            return not _held
        try:
            os.kill(int(self.name.split()[1]), 0)
        except ProcessLookupError:
            return True
        except (ValueError, OSError):  # no number, or a process of another user
            pass
        return False


def now() -> float:
    """Reads a clock, in seconds, that goes on while the process or the machine is stopped."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class LostLeaseError(TransientError):
    """Another job has taken the folder over, or may: the lease could not be renewed in time."""

    of_storage = True


class Lease:
    """A folder in a bucket that this process alone writes to, until it closes the lease."""

    def __init__(
        self,
        folder: epath.Path,
        name: str,
        seconds: float = LEASE_SECONDS,
        clock: Callable[[], float] = now,
        wait: bool = True,
    ) -> None:
        """Takes the lease, an object of this name in the folder; raises as `hold`.

        Another job takes it over after `seconds` without a renewal, which it counts by a clock of
        its own; `clock` is that of this process.
        """
        if any(lease.covers(folder) for lease in _held):
            raise HeldError(process_name())
        self._folder, self._seconds, self._clock = folder, seconds, clock
        self._object = SharedObject(folder / name)
        self._renewed, self._lost, self._lock = clock(), False, threading.Lock()
        self._version = self._take(wait)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()
        _held.add(self)

    def covers(self, path: PurePath) -> bool:
        """Says whether a path is in the folder."""
        return path.is_relative_to(self._folder)

    @property
    def needs_check(self) -> bool:
        """Says whether the lease is lost, or ends soon."""
        return self._lost or self._clock() > self._renewed + _MARGIN * self._seconds

    def check(self) -> None:
        """Renews a lease that ends soon; LostLeaseError if another job has it, or may have."""
        try:
            while self.needs_check and not self._lost:  # again where the answer came late
                self._renew()
        except OSError as error:
            raise LostLeaseError(
                f"{self._folder}: this job could not renew its lease for {self._seconds:.0f} s "
                f"({error.strerror or error}): it writes nothing more there; start again"
            ) from error
        if self._lost:
            raise LostLeaseError(
                f"{self._folder}: another job has taken it over, since this one could not renew "
                f"its lease for {self._seconds:.0f} s: it writes nothing more there; start again"
            )

    def close(self) -> None:
        """Ends the lease; if the storage does not answer, it ends when its time is over."""
        if self not in _held:
            return  # it is closed already, or this is a forked child
        self._closing.set()
        self._thread.join(_CLOSING_SECONDS)
        if not self._lost and not self._thread.is_alive():
            with contextlib.suppress(OSError):
                self._write(self._version, holder="")
        _held.discard(self)

    def _take(self, wait: bool) -> Version:
        """Writes this process as the holder, and returns that version of the object."""
        found, since, said = self._object.read(), self._clock(), False
        while True:
            holder = _Holder.read(found.content)
            if not holder.name or holder.is_gone() or self._clock() - since >= self._seconds:
                self._renewed = self._clock()
                if (written := self._write(found, process_name())) is not None:
                    return written
            elif not wait:
                raise HeldError(holder.name)
            elif not said:
                said = True
                say(
                    f"{self._folder}: waiting {self._seconds:.0f} s at most to see whether "
                    f"{holder.name} is still there"
                )
            time.sleep(min(1.0, self._seconds / 20))
            last, found = found, self._object.read()
            if found.generation != last.generation:  # it was renewed, or another job was first
                if name := _Holder.read(found.content).name:
                    raise HeldError(name)
                since = self._clock()

    def _keep(self) -> None:
        while not self._closing.wait(self._seconds / _RENEWALS):
            with contextlib.suppress(OSError):  # it is tried again, until the time is nearly over
                self._renew()

    def _renew(self) -> None:
        """Renews the lease, or finds that it is lost; raises OSError if the storage fails."""
        with self._lock:
            if self._lost:
                return
            start = self._clock()
            written = self._write(self._version, process_name())
            if written is None:
                self._lost = True
            else:
                self._version, self._renewed = written, start

    def _write(self, last: Version, holder: str) -> Version | None:
        """Writes the holder if the object is still `last`, else returns None."""
        content = _Holder(holder, _boot())._asdict()
        text = json.dumps({**content, "write": uuid.uuid4().hex}).encode()
        return self._object.write(text, last)


def needs_check() -> bool:
    """Says whether a lease of this process is lost or ends soon."""
    return any(lease.needs_check for lease in list(_held))


def check_leases() -> None:
    """Raises LostLeaseError if this process has lost a lease, and has not closed it yet."""
    for lease in list(_held):
        lease.check()


def hold(file: epath.Path, wait: bool = True) -> FileLock | Lease:
    """Holds the folder of a file for this process, which writes the file.

    If the last holder of a folder in a bucket may have ended, this waits for a minute to see, or
    without `wait` treats the folder as held. Raises HeldError if another process has it, UserError
    for a bucket of another service than Cloud Storage, OSError if the file cannot be written.
    """
    return Lease(file.parent, file.name, wait=wait) if in_bucket(file) else FileLock(file)


def stale_holder(file: epath.Path, content: bytes) -> str | None:
    """Returns the process of this host that wrote this content, if it has ended."""
    if not in_bucket(file):
        return stale_locker(file, content)
    holder = _Holder.read(content)
    return holder.name if holder.is_gone() else None


@functools.cache
def _boot() -> str:
    """Names the boot of this machine, and the container: process numbers are unique within both."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # it is no Linux
        return str(uuid.getnode())
