import mmap
import re
import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from switch_jax.monitoring.memory import memory_in_use, mesh_memory

GIB = 2**30


def _devices(monkeypatch, *stats):
    devices = [SimpleNamespace(memory_stats=lambda s=s: s) for s in stats]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)


def test_memory_that_is_touched_counts_and_its_peak_stays():
    # Of the system itself: the C library may keep what an array gives back.
    with mmap.mmap(-1, GIB // 4) as pages:
        for _ in range(256):
            pages.write(b"1" * (GIB // 1024))
        during = memory_in_use()
    after = memory_in_use()
    # Not compared with before: meanwhile the system may have taken pages that lay idle.
    assert during["host"] - after["host"] == pytest.approx(0.25, abs=0.03)
    assert after["host_peak"] >= during["host"] - 0.01


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_the_unit_of_the_peak_is_the_systems(monkeypatch, platform, unit):
    monkeypatch.setattr(sys, "platform", platform)
    usage = SimpleNamespace(ru_maxrss=3 * GIB // unit)
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    assert memory_in_use()["host_peak"] == 3.0


def test_the_fullest_device_and_the_smallest_limit(monkeypatch):
    """Devices with memory of their own have it each."""
    _devices(
        monkeypatch,
        {"peak_bytes_in_use": 5 * GIB, "bytes_limit": 16 * GIB},
        {"peak_bytes_in_use": 7 * GIB, "bytes_limit": 15 * GIB},
    )
    usage = memory_in_use()
    assert (usage["device_peak"], usage["device_limit"]) == (7.0, 15.0)
    assert mesh_memory(SimpleNamespace(size=8)) == 8 * 15 * GIB


def test_cpu_devices_share_what_their_machine_has(monkeypatch):
    _devices(monkeypatch, None, None)
    assert memory_in_use().keys() == {"host", "host_peak"}
    found = mesh_memory(SimpleNamespace(size=4))
    assert found > GIB // 2
    if sys.platform == "linux":
        total = re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())
        assert found <= int(total[1]) * 1024
