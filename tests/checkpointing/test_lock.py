import os
import socket
import subprocess
import sys

import pytest

from switch_jax.checkpointing import lock_run
from switch_jax.run_folder import RunFolder
from switch_jax.utils.errors import UserError

HOLDER = """
import sys
from pathlib import Path
from switch_jax.checkpointing import lock_run
from switch_jax.run_folder import RunFolder
lock = lock_run(RunFolder(Path(sys.argv[1])))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_folder_in_use_is_refused_until_its_holder_is_killed(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        where = rf"in use by process {holder.pid} on {socket.gethostname()}: stop that job"
        for _ in range(2):  # being refused takes nothing from the holder
            with pytest.raises(UserError, match=where):
                lock_run(RunFolder(tmp_path))
        holder.kill()
        holder.wait()
    lock_run(RunFolder(tmp_path)).close()


@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning", "ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    lock = lock_run(RunFolder(tmp_path))
    (read, write), (ready, begun) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(begun, b"x")
        os.read(read, 1)  # until the test is over
        os._exit(0)
    os.read(ready, 1)
    try:
        with pytest.raises(UserError, match="is in use by process"):
            lock_run(RunFolder(tmp_path))  # the child has let go of nothing that is not its own
        lock.close()
        lock_run(RunFolder(tmp_path)).close()
    finally:
        os.write(write, b"x")
        os.waitpid(child, 0)
        for descriptor in (read, write, ready, begun):
            os.close(descriptor)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be locked: No such file"):
        lock_run(RunFolder(tmp_path / "absent"))
