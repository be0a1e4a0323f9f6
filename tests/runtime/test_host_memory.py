"""The C library keeps what is freed, and is left alone where there are accelerators."""

import platform
import subprocess
import sys

import jax
import pytest

from switch_jax.hardware import tpus
from switch_jax.runtime import host_memory

# Page faults of a thread that allocates, touches and frees 256 MB, the third time; and MB that the
# process holds then, also in swap, before and after they are returned.
PROGRAM = """
import re, resource, threading
from pathlib import Path
import jax
from switch_jax.runtime.host_memory import keep_freed_memory, return_freed_memory

jax.config.update("jax_platforms", "cpu")
keep_freed_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(256 * 2**20)
    block[:] = b"x" * len(block)
    del block
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

def held():
    status = Path("/proc/self/status").read_text()
    return sum(map(int, re.findall(r"(?:VmRSS|VmSwap):\\s+(\\d+) kB", status))) // 1024

counts = []
for _ in range(3):
    thread = threading.Thread(target=faults)
    thread.start()
    thread.join()
before = held()
return_freed_memory()
print(counts[-1], before, held())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_a_thread_gets_the_memory_back_that_another_freed_until_it_is_returned():
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    faults, before, after = map(int, run.stdout.split())
    assert faults < 1000  # of 65536 pages
    assert after < before - 200


@pytest.mark.parametrize(
    ("platforms", "devices", "only"),
    [
        ("cpu", ["accel0"], True),
        ("tpu,cpu", [], False),
        (None, [], True),
        (None, ["accel0"], False),
    ],
)
def test_what_jax_is_told_to_use_decides_and_else_the_machine(
    platforms, devices, only, monkeypatch, tmp_path
):
    monkeypatch.setattr(tpus, "_DEVICES", tmp_path)
    for device in devices:
        (tmp_path / device).touch()
    before = jax.config.jax_platforms
    try:
        jax.config.update("jax_platforms", platforms)
        assert host_memory.only_cpus() == only
    finally:
        jax.config.update("jax_platforms", before)
