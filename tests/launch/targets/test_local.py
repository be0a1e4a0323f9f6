import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from switch_jax.cli import main, make_parser
from switch_jax.cli.gin_flags import expand_bindings
from switch_jax.launch.targets import local
from tests.trainer.worker_processes import (
    ROOT,
    TINY,
    finish,
    launch,
    losses,
    output,
    records,
    without_virtual_devices,
)
from tests.waiting import HANGS, wait_until

CORPUS = [
    "--gin_file=runs/demo_switch.gin", "--gin.MESH_DATA=2", "--gin.MESH_EXPERT=2",
    "--gin.BATCH_SIZE=16", "--gin.GROUP_SIZE=64", "--gin.DECODER_GROUP_SIZE=32",
    "--gin.DATA_STREAMS=4", "--gin.LOG_PERIOD=1",
    "--gin.EVAL_PERIOD=1000", "--gin.EVAL_STEPS=1", "--gin.CHECKPOINT_PERIOD=5",
    "--gin.TRAIN_STEPS=20",
]  # fmt: skip


def launch_here(count, *flags):
    return ["launch", "--on=local", f"--process_count={count}", *flags]


@pytest.fixture
def start():
    """start(count, log, *train) starts a launcher of its own; what it prints goes to the log."""
    started = []

    def start(count, log, *train):
        command = [sys.executable, "-m", "switch_jax", *launch_here(count), *train]
        with log.open("w") as file:
            launcher = subprocess.Popen(
                command, cwd=ROOT, env=without_virtual_devices(), stdout=file, stderr=file
            )
        started.append(launcher)
        return launcher

    yield start
    for launcher in started:
        launcher.terminate()
        launcher.wait(HANGS)


def pid_of(index, log):
    """Returns the id of a process of the launcher's run, found by its arguments."""
    found = subprocess.run(["ps", "-eo", "pid,args", "-ww"], capture_output=True, text=True)
    (line,) = [
        line
        for line in found.stdout.splitlines()
        if f"--process_index={index}" in line and f"--gin.MODEL_DIR={log.with_suffix('')}" in line
    ]
    return int(line.split()[0])


@pytest.mark.parametrize(
    ("count", "flags", "message"),
    [
        (3, [], r"3 processes cannot share the 4 devices .* 2 x 2 x 1 equally \(4 % 3 = 1\)"),
        (3, ["--gin.MESH_DATA=None"], r"the 2 devices of the mesh .* None x 2 x 1 equally"),
        (0, [], r"--process_count=0: write 1 to 256, which share this machine's"),
    ],
)
def test_a_mistake_is_told_before_anything_starts(count, flags, message, tmp_path, capsys):
    train = [f"--gin_file={TINY}", f"--gin.MODEL_DIR={tmp_path / 'run'}", *flags]
    assert main(launch_here(count, *train)) == 2
    assert re.search(message, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def script(monkeypatch):
    """script(code, ...) has attempts end with these codes; returns those that are left."""

    def script(*ends):
        left = list(ends)

        def run_together(commands, environment, signals):
            assert environment["JAX_PLATFORMS"] == "cpu"
            assert "device_count" not in environment["XLA_FLAGS"]  # the mesh makes its own
            taken = [make_parser().parse_args(expand_bindings(words[3:])) for words in commands]
            assert [(one.process_count, one.process_index) for one in taken] == [(2, 0), (2, 1)]
            assert len({one.coordinator_address for one in taken}) == 1
            end = left.pop(0)
            return end() if callable(end) else end

        monkeypatch.setattr(local, "run_together", run_together)
        return left

    return script


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 75), ("SIGINT", 137)])
def test_a_launcher_that_is_asked_to_stop_starts_nothing_again(script, tmp_path, number, code):
    def ends():
        os.kill(os.getpid(), signal.Signals[number])
        return code

    left = script(ends, 0)
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    train = [f"--gin_file={TINY}", f"--gin.MODEL_DIR={tmp_path}"]
    assert main(launch_here(2, *train)) == code
    assert left == [0]
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run on the shipped corpus of one process that nothing disturbs."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    command = ["train", *CORPUS, f"--gin.MODEL_DIR={folder}"]
    assert finish(launch(1, folder, *command), folder) == [0], output(folder)
    return folder


def assert_same_run(folder, expected):
    """Checks for the same global batches in the same order, and losses equal to rounding."""
    found, expected = losses(folder), losses(expected)
    assert found.keys() == expected.keys() == set(range(1, 21))
    for step in found:
        assert found[step][0] == expected[step][0]
        np.testing.assert_allclose(found[step][1], expected[step][1], rtol=1e-5)


@pytest.mark.slow
def test_one_killed_ends_all_and_the_job_starts_again_from_the_checkpoint(start, alone, tmp_path):
    """And four processes give the losses of one."""
    folder, log = tmp_path / "run", tmp_path / "run.log"
    launcher = start(4, log, *CORPUS, f"--gin.MODEL_DIR={folder}")
    wait_for(lambda: (folder / "checkpoints/5").exists(), launcher, log)
    subprocess.run(["kill", "-9", str(pid_of(2, log))], check=True)
    assert launcher.wait(HANGS) == 0, log.read_text()
    said = log.read_text()
    assert "process 2 has ended with exit code 137: ending the others" in said
    assert re.search(r"crashed \(exit code 137\): starting again from the checkpoint of step", said)
    assert re.search(r"^\[0\] continuing from the checkpoint of step \d+ in ", said, re.M)
    assert_same_run(folder, alone)


@pytest.mark.slow
def test_sigterm_to_the_launcher_saves_and_is_the_end(start, tmp_path):
    folder, log = tmp_path / "run", tmp_path / "run.log"
    flags = [f"--gin_file={TINY}", f"--gin.MODEL_DIR={folder}", "--gin.TRAIN_STEPS=100000"]
    launcher = start(2, log, *flags)
    wait_for(lambda: len(records(folder)) > 2, launcher, log)
    pids = [pid_of(index, log) for index in (0, 1)]
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(HANGS) == 75, log.read_text()
    (step,) = {int(step) for step in re.findall(r"state of step (\d+) is saved", log.read_text())}
    assert (folder / f"checkpoints/{step}").exists()
    left = subprocess.run(["ps", "-o", "pid=", "-p", ",".join(map(str, pids))], capture_output=True)
    assert left.stdout == b""


def wait_for(condition, launcher, log):
    """Until it holds, while the launcher runs."""

    def holds():
        assert launcher.poll() is None, log.read_text()
        return condition()

    wait_until(holds)
