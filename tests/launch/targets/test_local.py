import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from switch_jax.cli import main
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
        launcher.wait(60)


def pid_of(index, log):
    """Of a process of the launcher's run, found by what it was started with."""
    found = subprocess.run(["ps", "-eo", "pid,args", "-ww"], capture_output=True, text=True)
    (line,) = [
        line
        for line in found.stdout.splitlines()
        if f"--process_index={index}" in line and f"--gin.MODEL_DIR={log.with_suffix('')}" in line
    ]
    return int(line.split()[0])


def test_a_dry_run_prints_the_commands_and_makes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(local, "run_together", None)
    train = [f"--gin_file={TINY}", f"--gin.MODEL_DIR={tmp_path / 'a run'}", "--gin.MESH_DATA=1"]
    assert main(launch_here(2, "--dry_run", *train)) == 0
    common = (
        f"JAX_PLATFORMS=cpu python -m switch_jax train --gin_file={TINY} "
        f"--gin.MODEL_DIR='{tmp_path}/a run' --gin.MESH_DATA=1 "
        "--coordinator_address=localhost:8476 --process_count=2 --process_index="
    )
    assert capsys.readouterr().out == (
        f"# process 0 of 2\n{common}0\n# process 1 of 2\n{common}1\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("count", "flags", "message"),
    [
        (3, [], r"3 processes cannot share the 4 devices .* 2 x 2 x 1 equally \(4 % 3 = 1\)"),
        (8, [], r"\(4 % 8 = 4\)$"),
        (3, ["--gin.MESH_DATA=None"], r"the 2 devices of the mesh .* None x 2 x 1 equally"),
        (0, [], r"--process_count=0: write 1 to 256"),
        (2, ["--gin.MESH_EXPERT=0"], r"MESH_EXPERT = 0: it must be at least 1"),
        (2, ["--gin.BATCH_SIZE=18"], r"batch size 18 does not divide"),
        (2, ["--gin.TRAIN_STEP=3"], r"no gin file knows a macro TRAIN_STEP; did you mean"),
    ],
)
def test_a_mistake_is_told_before_anything_starts(count, flags, message, tmp_path, capsys):
    train = [f"--gin_file={TINY}", f"--gin.MODEL_DIR={tmp_path / 'run'}", *flags]
    assert main(launch_here(count, *train)) == 2
    assert re.search(message, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def script(monkeypatch):
    """script(code, ...) has attempts end with these codes; returns where each of them logs to."""

    def script(*ends):
        left, logs = list(ends), []

        def run_together(commands, environment, log, signals):
            assert len(commands) == 2 and environment["JAX_PLATFORMS"] == "cpu"
            Path(f"{log}0.log").touch()
            logs.append(Path(log).name)
            end = left.pop(0)
            return end() if callable(end) else end

        monkeypatch.setattr(local, "run_together", run_together)
        return logs

    return script


def test_a_job_that_crashes_starts_again(script, tmp_path, capfd):
    logs = script(137, 75, 0)
    train = [f"--gin_file={TINY}", f"--gin.MODEL_DIR={tmp_path}"]
    assert main(launch_here(2, "--max_restarts=1", *train)) == 0
    assert logs == [f"attempt_{i}_process_" for i in (1, 2, 3)]
    said = capfd.readouterr().err
    assert "switch_jax launch: crashed (exit code 137): starting again from the beginning" in said
    assert "switch_jax launch: preempted (exit code 75): starting again" in said


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 75), ("SIGINT", 137), ("SIGTERM", 0)])
def test_a_launcher_that_is_asked_to_stop_starts_nothing_again(script, tmp_path, number, code):
    def ends():
        os.kill(os.getpid(), signal.Signals[number])
        return code

    logs = script(ends, 0)
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    train = [f"--gin_file={TINY}", f"--gin.MODEL_DIR={tmp_path}"]
    assert main(launch_here(2, *train)) == code
    assert len(logs) == 1
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers


def test_processes_find_each_other_and_their_devices(tmp_path, capfd):
    """Up to a mistake that only the processes find, once they have found each other."""
    folder = tmp_path / "run"
    (folder / "logs").mkdir(parents=True)
    (folder / "logs/attempt_4_process_0.log").write_text("of an earlier launch")
    train = [f"--gin_file={TINY}", f"--gin.MODEL_DIR={folder}"]
    assert main(launch_here(2, *train, f"--gin.INITIAL_CHECKPOINT_PATH={tmp_path}")) == 2
    mistake = f"{tmp_path} has no checkpoint"
    assert re.search(rf"^\[[01]\] .*{mistake}", capfd.readouterr().err, re.M)
    logs = [folder / f"logs/attempt_5_process_{i}.log" for i in (0, 1)]
    assert any(mistake in log.read_text() for log in logs)
    assert sorted((folder / "logs").iterdir()) == [
        folder / "logs/attempt_4_process_0.log", *logs
    ]  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run on the shipped corpus of one process that nothing disturbs."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    command = ["train", *CORPUS, f"--gin.MODEL_DIR={folder}"]
    assert finish(launch(1, folder, *command), folder) == [0], output(folder)
    return folder


def assert_same_run(folder, expected):
    """The same global batches in the same order, and losses equal to rounding."""
    found, expected = losses(folder), losses(expected)
    assert found.keys() == expected.keys() == set(range(1, 21))
    for step in found:
        assert found[step][0] == expected[step][0]
        np.testing.assert_allclose(found[step][1], expected[step][1], rtol=1e-5)


@pytest.mark.slow
def test_four_processes_give_the_losses_of_one(start, alone, tmp_path):
    log = tmp_path / "run.log"
    launcher = start(4, log, *CORPUS, f"--gin.MODEL_DIR={tmp_path / 'run'}")
    assert launcher.wait(600) == 0, log.read_text()
    assert_same_run(tmp_path / "run", alone)
    assert (tmp_path / "run/logs/attempt_1_process_3.log").exists()


@pytest.mark.slow
def test_one_killed_ends_all_and_the_job_starts_again_from_the_checkpoint(start, alone, tmp_path):
    folder, log = tmp_path / "run", tmp_path / "run.log"
    launcher = start(4, log, *CORPUS, f"--gin.MODEL_DIR={folder}")
    wait_for(lambda: (folder / "checkpoints/5").exists(), launcher, log)
    subprocess.run(["kill", "-9", str(pid_of(2, log))], check=True)
    killed = time.monotonic()
    wait_for(lambda: "137): starting again" in log.read_text(), launcher, log)
    assert time.monotonic() - killed < 30
    assert launcher.wait(600) == 0, log.read_text()
    said = log.read_text()
    assert "process 2 has ended with exit code 137: ending the others" in said
    assert re.search(r"crashed \(exit code 137\): starting again from the checkpoint of step", said)
    assert re.search(r"^\[0\] continuing from the checkpoint of step \d+$", said, re.M)
    assert_same_run(folder, alone)


@pytest.mark.slow
def test_sigterm_to_the_launcher_saves_and_is_the_end(start, tmp_path):
    folder, log = tmp_path / "run", tmp_path / "run.log"
    flags = [f"--gin_file={TINY}", f"--gin.MODEL_DIR={folder}", "--gin.TRAIN_STEPS=100000"]
    launcher = start(2, log, *flags)
    wait_for(lambda: len(records(folder)) > 2, launcher, log)
    pids = [pid_of(index, log) for index in (0, 1)]
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(120) == 75, log.read_text()
    (step,) = {int(step) for step in re.findall(r"state of step (\d+) is saved", log.read_text())}
    assert (folder / f"checkpoints/{step}").exists()
    left = subprocess.run(["ps", "-o", "pid=", "-p", ",".join(map(str, pids))], capture_output=True)
    assert left.stdout == b""


def wait_for(condition, launcher, log):
    """Until it holds, while the launcher runs."""
    deadline = time.monotonic() + 400
    while not condition():
        assert launcher.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def test_the_doctor_runs_in_place_of_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(local, "run_together", None)
    run = [f"--gin_file={TINY}", f"--gin.MODEL_DIR={tmp_path}/run/", "--gin.MESH_DATA=1"]
    assert main(launch_here(1, "--dry_run", "--doctor", *run)) == 0
    assert (
        f"python -m switch_jax doctor --gin_file={TINY} --gin.MODEL_DIR={tmp_path}/run/ "
        "--gin.MESH_DATA=1 --coordinator_address="
    ) in capsys.readouterr().out
    assert main(launch_here(1, "--dry_run", "--doctor", "--change_task", *run)) == 2
    assert "--change_task is for training: leave it out with" in capsys.readouterr().err
