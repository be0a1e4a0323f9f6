"""Commands whose standard output is full, closed, or a pipe that nobody reads any more."""

import errno
import io
import json
import os
import subprocess
import sys

import pytest

from switch_jax.cli import processes
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


@pytest.mark.parametrize(
    ("command", "redirection", "code"),
    [
        (["status", "."], "> /dev/full", 2),
        (["status", "."], "| true", 128 + 13),
        (["status", "."], ">&-", 0),
    ],
)
def test_a_command_that_cannot_print_ends_quietly(run_folder, command, redirection, code):
    assert run(["-m", "switch_jax", *command], run_folder, redirection) == (code, "")


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
    processes.exit_now(2)
    assert (raw.getvalue(), ended) == (b"words", [2])


@pytest.mark.parametrize("redirection", ["> /dev/full", "| true", "2>&- >&-"])
def test_training_continues_when_nothing_can_be_printed(tmp_path, redirection):
    code, error = run(["-c", TRAIN], tmp_path, redirection)
    assert (code, (tmp_path / "trained").exists()) == (0, True)
    assert set(error.splitlines()) <= {"warning"}


def test_a_dry_run_that_cannot_print_its_config_fails(tmp_path):
    assert run(["-c", TRAIN, "--dry_run"], tmp_path, "> /dev/full")[0] == 2
