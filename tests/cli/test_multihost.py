"""How processes end: two of a command, one of which fails; and one with a thread that hangs."""

import subprocess
import sys

import pytest

from switch_jax.cli import multihost
from tests.trainer.worker_processes import ROOT, free_port, without_virtual_devices

# `switch_jax tasks`, which here joins another process; the second fails once both are there.
PROGRAM = """
import sys, time
from switch_jax import cli
from switch_jax.cli import tasks
from switch_jax.errors import UserError
from switch_jax.runtime import processes

def main(args):
    processes.connect(f"localhost:{port}", 2, int(index))
    if index == "1":
        raise {"mistake": UserError, "crash": ValueError}[kind]("mine alone")
    time.sleep(100)

port, index, kind = sys.argv[1:]
tasks.main = main
sys.argv[1:] = ["tasks"]
sys.exit(cli.main())
"""


@pytest.mark.parametrize(("kind", "code"), [("mistake", 2), ("crash", 1)])
def test_one_that_fails_does_not_wait_for_the_others(kind, code):
    port = str(free_port())
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, port, str(index), kind],
            cwd=ROOT, env=without_virtual_devices(), stderr=subprocess.PIPE, text=True,
        )
        for index in (0, 1)
    ]  # fmt: skip
    try:
        error = both[1].communicate(timeout=90)[1]
        assert both[1].returncode == code
        assert error.count("mine alone") == 1
        assert both[0].poll() is None
    finally:
        for process in both:
            process.kill()
            process.wait()


# `switch_jax train`, which here leaves a thread behind that reads data and gets none.
HANGING = """
import sys, threading, time
from switch_jax import cli
from switch_jax.cli import train
from switch_jax.errors import UserError

def main(args):
    threading.Thread(target=time.sleep, args=(100,)).start()
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
def test_training_ends_with_its_code_though_a_thread_hangs(how, code):
    ended = subprocess.run(
        [sys.executable, "-c", HANGING, how],
        cwd=ROOT, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert ended.returncode == code
    assert "words" in ended.stdout + ended.stderr


def test_alone_nothing_has_been_joined():
    assert not multihost.joined()
