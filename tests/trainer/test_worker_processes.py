"""A test that fails leaves no training process behind."""

import signal
import subprocess

import pytest

from tests.trainer.worker_processes import wait_for_step


@pytest.mark.parametrize(("other", "timeout"), [("300", 0.1), ("0", 60)], ids=["late", "one ended"])
def test_a_wait_in_vain_ends_the_processes(tmp_path, other, timeout):
    processes = [subprocess.Popen(["sleep", seconds]) for seconds in ("300", other)]
    try:
        with pytest.raises(AssertionError):
            wait_for_step(tmp_path / "run", 1, processes, timeout)
        assert processes[0].wait(10) == -signal.SIGKILL
    finally:
        for process in processes:
            process.kill()
            process.wait()
