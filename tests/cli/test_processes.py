"""How processes exit: one of two that fails, and one with a thread that blocks."""

import argparse
import os
import subprocess
import sys

import pytest

from switch_jax.cli import processes, train
from switch_jax.config import MeshConfig
from switch_jax.gin_config import teacher
from switch_jax.runtime import multihost
from switch_jax.utils.errors import UserError
from tests.trainer.worker_processes import ROOT, free_port, without_virtual_devices
from tests.waiting import HANGS

# Replaces `switch_jax tasks` by joining another process; the second fails once both have joined.
PROGRAM = """
import sys, time
from switch_jax import cli
from switch_jax.cli import tasks
from switch_jax.utils.errors import UserError
from switch_jax.runtime import multihost

def main(args):
    multihost.connect(f"localhost:{port}", 2, int(index))
    if index == "1":
        raise UserError("mine alone")
    time.sleep(10_000)

port, index = sys.argv[1:]
tasks.main = main
sys.argv[1:] = ["tasks"]
sys.exit(cli.main())
"""


def test_one_that_fails_does_not_wait_for_the_others():
    port = str(free_port())
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, port, str(index)],
            cwd=ROOT,
            env=without_virtual_devices(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in (0, 1)
    ]
    try:
        error = both[1].communicate(timeout=HANGS)[1]
        assert both[1].returncode == 2
        assert error.count(": mine alone") == 1
        assert both[0].poll() is None
    finally:
        for process in both:
            process.kill()
            process.wait()


# Replaces `switch_jax train` by a main function that leaves a blocking thread behind.
BLOCKING = """
import sys, threading, time
from switch_jax import cli
from switch_jax.cli import train
from switch_jax.utils.errors import UserError

def main(args):
    threading.Thread(target=time.sleep, args=(10_000,)).start()
    if how == "mistake":
        raise UserError("words")
    if how == "crash":
        raise ValueError("words")
    print("words")
    return 75

how = sys.argv.pop()
train.main = main
sys.argv.append("train")
sys.exit(cli.main())
"""


@pytest.mark.parametrize(("how", "code"), [("stopped", 75), ("mistake", 2), ("crash", 1)])
def test_training_exits_with_its_code_though_a_thread_blocks(how, code, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", BLOCKING, how],
        cwd=ROOT,
        env={**os.environ, "SWITCH_JAX_ENDED_WITH": f"{tmp_path}/code_"},
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert ended.returncode == code
    assert "words" in ended.stdout + ended.stderr
    assert [file.name for file in tmp_path.iterdir()] == [f"code_{code}"]


def test_an_address_without_a_host_and_a_port_is_refused(monkeypatch):
    """JAX would crash, or wait for ever."""
    monkeypatch.setattr(multihost, "connect", lambda *args, **options: None)
    monkeypatch.setattr(multihost, "check_same_config", lambda text: None)

    def connect(address):
        flags = {"multihost": False, "process_count": 1, "process_index": 0}
        flags = argparse.Namespace(coordinator_address=address, **flags)
        processes.connect(flags, MeshConfig(), "")

    for address in ("localhost", "127.0.0.1:99999", "127.0.0.1:0", ":8476", "127.0.0.1:", ""):
        with pytest.raises(UserError, match=f"^--coordinator_address={address}: write HOST:PORT"):
            connect(address)
    for address in ("localhost:8476", "[::1]:1", "10.0.0.1:65535"):
        connect(address)


@pytest.mark.parametrize("joined", [True, False])
def test_a_teacher_is_read_once_the_hosts_are_connected(joined, monkeypatch):
    """So that all of them tell what is wrong with it, and together."""
    order = []
    monkeypatch.setattr(processes, "connect", lambda *args: order.append("connect"))
    monkeypatch.setattr(processes, "is_distributed", lambda: joined)
    monkeypatch.setattr(multihost, "run_on_all", lambda read: (order.append("on all"), read())[1])
    monkeypatch.setattr(teacher, "with_teacher", lambda config: order.append("teacher"))
    found = argparse.Namespace(config=argparse.Namespace(mesh=None), text="")
    train._connected(argparse.Namespace(), found)
    assert order == ["connect", *(["on all"] if joined else []), "teacher"]
