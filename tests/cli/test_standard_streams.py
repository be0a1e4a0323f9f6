"""Commands whose standard output is full, closed, or a pipe that nobody reads any more."""

import contextlib
import errno
import io
import json
import os
import subprocess
import sys

import pytest

from switch_jax.cli import multihost
from switch_jax.cli.standard_streams import Stream
from tests.trainer.worker_processes import ROOT

# Replaces `switch_jax train` by a main function that prints and then creates a file.
TRAIN = """
import sys
from pathlib import Path
from switch_jax import cli
from switch_jax.cli import train

def main(args):
    for step in range(20_000):
        print(f"step {step}")
        print("warning", file=sys.stderr, flush=True)
    Path("trained").touch()
    return 0

train.main = main
sys.argv[1:] = ["train", *sys.argv[1:]]
sys.exit(cli.main())
"""


@pytest.fixture
def run_folder(tmp_path):
    life = {"state": "finished", "message": "", "time": 1.0, "started": 1.0}
    (tmp_path / "status.json").write_text(json.dumps(life))
    (tmp_path / "metrics.jsonl").write_text(
        '{"kind": "eval", "step": 1, "neg_log_perplexity": -1.0}\n'
    )
    return tmp_path


def run(arguments, folder, redirection):
    """Runs a Python with the arguments in a folder, by a shell; exit code and standard error."""
    command = '"$0" "$@" ' + redirection
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command, sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return done.returncode, done.stderr


FULL = "standard output cannot be written: No space left on device"


@pytest.mark.parametrize(
    ("command", "redirection", "code", "error"),
    [
        (["status", "."], "> /dev/full", 2, f"switch_jax status: {FULL}\n"),
        (["--help"], "> /dev/full", 2, f"switch_jax: {FULL}\n"),
        (["status", "."], "| true", 128 + 13, ""),
        (["status", "."], ">&-", 0, ""),
        (["status", "."], "> /dev/full 2>&1", 2, ""),
    ],
)
def test_a_command_that_cannot_print_exits_with_one_line(
    run_folder, command, redirection, code, error
):
    assert run(["-m", "switch_jax", *command], run_folder, redirection) == (code, error)


@pytest.fixture
def full_pipe():
    """The write end of a non-blocking pipe that is full."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, bytes(4096))
    yield write
    os.close(read)
    os.close(write)


def test_a_full_non_blocking_pipe_is_a_failure(full_pipe):
    stream = Stream(full_pipe)
    output = io.TextIOWrapper(io.BufferedWriter(stream))
    print("words", file=output)
    with pytest.raises(BlockingIOError) as error:
        output.flush()
    assert error.value is stream.failure and stream.failure.errno == errno.EAGAIN
    output.flush()  # what comes after a failure is dropped
    print("more", file=output, flush=True)


def test_with_on_failure_a_full_pipe_raises_nothing(full_pipe):
    stream, failures = Stream(full_pipe), []
    stream.on_failure = failures.append
    output = io.TextIOWrapper(io.BufferedWriter(stream))
    for _ in range(2):
        print("words", file=output, flush=True)
    assert failures == [stream.failure]


def test_standard_error_is_flushed_though_standard_output_fails(monkeypatch):
    class Broken(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    raw, ended = io.BytesIO(), []
    errors = io.TextIOWrapper(raw)
    errors.write("words")
    monkeypatch.setattr(sys, "stdout", Broken())
    monkeypatch.setattr(sys, "stderr", errors)
    monkeypatch.setattr(os, "_exit", ended.append)
    multihost.exit_now(2)
    assert (raw.getvalue(), ended) == (b"words", [2])


@pytest.mark.parametrize("redirection", ["> /dev/full", "| true", ">&-", "2>&- >&-"])
def test_training_continues_when_nothing_can_be_printed(tmp_path, redirection):
    code, error = run(["-c", TRAIN], tmp_path, redirection)
    assert (code, (tmp_path / "trained").exists()) == (0, True)
    lines = [line for line in error.splitlines() if line != "warning"]
    if redirection.startswith(">&-") or redirection.startswith("2>&-"):
        assert lines == []
    else:
        (line,) = lines
        assert line.startswith("switch_jax train: standard output cannot be written (")
        assert line.endswith("); training continues, and MODEL_DIR has its records")


def test_a_dry_run_that_cannot_print_its_config_says_so(tmp_path):
    code, error = run(["-c", TRAIN, "--dry_run"], tmp_path, "> /dev/full")
    assert code == 2 and error.splitlines()[-1] == f"switch_jax train: {FULL}"
