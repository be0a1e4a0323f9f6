import errno
import json
import os
import time

import pytest
from etils import epath

from switch_jax.cli import main
from switch_jax.reports import run_status


@pytest.fixture
def make(tmp_path):
    """make(name, state) writes a folder of a run that was in that state a moment ago."""

    def make(name, state):
        folder = tmp_path / name
        folder.mkdir()
        status = {"state": state, "message": "", "time": time.time(), "started": time.time()}
        (folder / "status.json").write_text(json.dumps(status))
        return str(folder)

    return make


def test_one_run_has_a_page_and_exit_code_0(make, capsys):
    folder = make("run", "stopped")
    assert main(["status", folder]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{folder}: stopped"


def test_several_have_a_line_each_and_the_code_says_whether_somebody_has_to_look(make, capsys):
    folders = [make(state, state) for state in ("running", "failed", "finished")]
    assert main(["status", *folders]) == 4
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in printed] == ["state", "running", "failed", "finished"]
    assert main(["status", "--json", *folders[:2]]) == 4
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


def test_a_folder_that_cannot_be_read_now_may_pass(make, monkeypatch, capsys):
    def answer_nothing(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    folder = make("run", "running")
    monkeypatch.setattr(type(epath.Path(folder)), "read_bytes", answer_nothing)
    assert main(["status", folder]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"switch_jax status: {folder} cannot be read: {folder}/run.json")
    assert line.endswith("(Input/output error); this may pass: start again")


def test_a_folder_that_is_none_of_a_run_does_not_hide_the_others(make, tmp_path, capsys):
    folders = [make("a", "running"), str(tmp_path / "absent"), make("b", "finished")]
    assert main(["status", *folders]) == 2
    printed = capsys.readouterr()
    states = [line.split()[1] for line in printed.out.splitlines()]
    assert states == ["state", "running", "finished"]
    assert printed.err == f"switch_jax status: there is no folder {tmp_path}/absent\n"
    (tmp_path / "absent").mkdir()
    assert main(["status", folders[1]]) == 2
    told = f"{tmp_path}/absent is no folder of a run, a training's MODEL_DIR: it has no "
    assert capsys.readouterr().err.startswith(f"switch_jax status: {told}")
