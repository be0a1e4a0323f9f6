import errno
import json
import os
import time

import pytest

from switch_jax.cli import main
from switch_jax.reports import run_status


@pytest.fixture
def make(tmp_path):
    """make(name, state) writes a folder of a run that was in that state a moment ago."""

    def make(name, state, now=None):
        folder = tmp_path / name
        folder.mkdir()
        status = {"state": state, "message": "", "time": time.time(), "started": time.time()}
        (folder / "status.json").write_text(json.dumps(status))
        return str(folder)

    return make


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["running"], 0),
        (["finished"], 0),
        (["stopped"], 0),
        (["failed"], 4),
        (["running", "failed", "finished"], 4),
        (["running", "finished"], 0),
    ],
)
def test_the_exit_code_says_whether_somebody_has_to_look(make, states, code, capsys):
    folders = [make(f"run{i}", state) for i, state in enumerate(states)]
    assert main(["status", *folders]) == code
    printed = capsys.readouterr().out.splitlines()
    if len(states) == 1:
        assert printed[0] == f"{folders[0]}: {states[0]}"
    else:
        assert [line.split()[1] for line in printed] == ["state", *states]


def test_json_is_an_object_a_line(make, capsys):
    folders = [make("a", "running"), make("b", "failed")]
    assert main(["status", "--json", *folders]) == 4
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(x["folder"], x["state"], x["needs_attention"]) for x in found] == [
        (folders[0], "running", False),
        (folders[1], "failed", True),
    ]


def test_a_bucket_that_cannot_be_read_is_reported_in_a_line(monkeypatch, capsys):
    def read_status(folder):
        raise RuntimeError("403: no permission\nmore of it")

    monkeypatch.setattr(run_status, "read_status", read_status)
    assert main(["status", "gs://mine/run"]) == 2
    line = "switch_jax status: gs://mine/run cannot be read: 403: no permission\n"
    assert capsys.readouterr().err == line


def test_a_folder_that_is_none_of_a_run_does_not_hide_the_others(make, tmp_path, capsys):
    folders = [make("a", "running"), str(tmp_path / "absent"), make("b", "finished")]
    assert main(["status", *folders]) == 2
    printed = capsys.readouterr()
    assert [line.split()[1] for line in printed.out.splitlines()] == [
        "state",
        "running",
        "finished",
    ]
    told = f"{tmp_path}/absent is no folder of a run, a training's MODEL_DIR: it has no "
    assert printed.err.startswith(f"switch_jax status: {told}")


def test_a_folder_that_cannot_be_read_now_may_pass(make, monkeypatch, capsys):
    def answer_nothing(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    folder = make("run", "running")
    monkeypatch.setattr("pathlib.Path.is_fifo", answer_nothing)  # asked before each file is read
    assert main(["status", folder]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"switch_jax status: {folder} cannot be read: {folder}/run.json")
    assert line.endswith("(Input/output error); this may pass: start again")
