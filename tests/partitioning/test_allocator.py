"""The allocator keeps what is freed, and is left alone where there are accelerators."""

import platform
import subprocess
import sys

import pytest

# Page faults of a thread that allocates, touches and frees 256 MB, the second time.
PROGRAM = """
import resource, threading
import jax
from switch_jax.partitioning.allocator import keep_freed_memory

jax.config.update("jax_platforms", {platforms!r})
keep_freed_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(256 * 2**20)
    block[:] = b"x" * len(block)
    del block
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

counts = []
for _ in range(3):
    thread = threading.Thread(target=faults)
    thread.start()
    thread.join()
print(counts[-1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
@pytest.mark.parametrize("platforms, few", [("cpu", True), ("tpu,cpu", False)])
def test_memory_is_kept_where_the_devices_are_cpus(platforms, few):
    program = PROGRAM.format(platforms=platforms)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert (int(run.stdout) < 1000) == few
