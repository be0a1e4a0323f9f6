"""Starts in pods, counted in a run's folder. The program runs as a pod runs it, on a local disk."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from switch_jax.exit_codes import MISTAKE
from switch_jax.launch import restart_limit
from switch_jax.run_folder import RunFolder
from tests.waiting import HANGS


def start(folder: Path, max_restarts: int, *command: str, **variables: str):
    """Runs `command` in a pod with these variables; a code and what it says of the start."""
    argv = [sys.executable, "-m", "switch_jax.launch.restart_limit", str(folder), str(max_restarts)]
    environment = {key: v for key, v in os.environ.items() if not key.startswith("TPU_")}
    done = subprocess.run(
        [*argv, "--", *command],
        env=environment | variables,
        timeout=HANGS,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def starts(tmp_path):
    """Whether each of the next starts may be, with at most 2 restarts, and what is recorded."""

    def counted(number):
        return [restart_limit.may_start(RunFolder(tmp_path), 2) for _ in range(number)]

    return counted


def checkpoint(folder, step):
    (folder / "checkpoints" / str(step)).mkdir(parents=True)


def test_only_starts_without_a_new_checkpoint_count(starts, tmp_path, capsys):
    assert starts(3) == [True] * 3
    checkpoint(tmp_path, 100)
    assert starts(2) == [True] * 2
    assert json.loads((tmp_path / "starts.json").read_text()) == {"step": 100, "starts": 2}
    for step in range(200, 20_000, 200):  # a hundred preemptions of a healthy run
        checkpoint(tmp_path, step)
        assert starts(2) == [True] * 2
    assert starts(2) == [True, False]
    told = "switch_jax launch: 2 restarts without a checkpoint after step 19800: giving up\n"
    assert capsys.readouterr().err == told
    assert starts(4) == [True, True, True, False]  # a person has launched it again


def test_a_run_that_went_back_to_an_earlier_checkpoint_has_not_moved_on(starts, tmp_path):
    checkpoint(tmp_path, 100)
    checkpoint(tmp_path, 200)
    assert starts(1) == [True]
    (tmp_path / "checkpoints/200").rmdir()
    assert starts(3) == [True, True, False]


@pytest.mark.parametrize("damaged", ["{", '{"step": "x"}', '{"starts": -1}'])
def test_a_damaged_record_counts_as_none(damaged, starts, tmp_path):
    (tmp_path / "starts.json").write_text(damaged)
    assert starts(4) == [True, True, True, False]


def test_in_a_bucket_it_counts_alike(bucket_path):
    folder = RunFolder(bucket_path)
    assert [restart_limit.may_start(folder, 1) for _ in range(3)] == [True, True, False]
    assert not folder.starts.exists()


def test_a_folder_that_cannot_be_written_does_not_keep_a_run_from_starting(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert restart_limit.may_start(RunFolder(tmp_path / "file/run"), 0)
    assert "launch: this start is not counted: " in capsys.readouterr().err


def test_crashes_count_and_the_last_start_is_refused(tmp_path):
    crash = ("bash", "-c", "echo ran; exit 134")
    assert start(tmp_path, 1, *crash)[:2] == (134, "ran\n")
    assert start(tmp_path, 1, *crash)[:2] == (134, "ran\n")
    code, out, error = start(tmp_path, 1, *crash)
    assert (code, out) == (MISTAKE, "") and "1 restarts without a checkpoint" in error


@pytest.mark.parametrize("code", [0, 2, 3, 130])
def test_a_job_that_has_ended_leaves_no_count(code, tmp_path):
    assert start(tmp_path, 0, "bash", "-c", "exit 1")[0] == 1
    (tmp_path / "starts.json").unlink()
    for _ in range(2):  # of which the second would be one too many
        assert start(tmp_path, 0, "bash", "-c", f"exit {code}")[0] == code
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variable", ["TPU_WORKER_ID", "MEGASCALE_SLICE_ID"])
def test_only_the_first_host_of_the_first_slice_counts(variable, tmp_path):
    first = {"TPU_WORKER_ID": "0", "MEGASCALE_SLICE_ID": "0"}
    for _ in range(2):
        assert start(tmp_path, 0, "false", **first | {variable: "1"})[0] == 1
    assert list(tmp_path.iterdir()) == []
    assert start(tmp_path, 0, "false", **first)[0] == 1
    assert (tmp_path / "starts.json").exists()


@pytest.mark.parametrize(
    ("sent", "command", "expected"),
    [
        (signal.SIGTERM, "trap 'exit 75' TERM; echo ready; while true; do sleep 0.05; done", 75),
        (signal.SIGTERM, "echo ready; exec sleep 600", 143),
        (signal.SIGINT, "trap 'exit 130' INT; echo ready; while true; do sleep 0.05; done", 130),
    ],
)
def test_signals_reach_the_trainer_and_its_exit_code_is_the_pod_s(
    sent, command, expected, tmp_path
):
    argv = [sys.executable, "-m", "switch_jax.launch.restart_limit", str(tmp_path), "3", "--"]
    with subprocess.Popen([*argv, "bash", "-c", command], stdout=subprocess.PIPE) as pod:
        assert pod.stdout and pod.stdout.readline() == b"ready\n"
        pod.send_signal(sent)
        assert pod.wait(HANGS) == expected
