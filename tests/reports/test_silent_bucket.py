"""A bucket that does not answer is no mistake of the user: the same command may do later."""

import itertools

import pytest

from switch_jax.cli import main
from switch_jax.storage import RETRIES
from tests.storage.slow_proxy import Faults


@pytest.fixture
def silent_path(faulty_storage, bucket_path, monkeypatch):
    """A folder in a bucket that fails each request."""
    monkeypatch.setattr(type(RETRIES), "waiting_times", lambda self: iter([]))
    faulty_storage.faults = Faults(itertools.repeat(503))
    return bucket_path


@pytest.mark.parametrize("command", ["status", "report"])
def test_a_run_that_cannot_be_read_now_may_be_read_later(command, silent_path, capsys):
    assert main([command, str(silent_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"switch_jax {command}: {silent_path} ")
    assert line.endswith("); this may pass: start again")


def test_of_several_runs_without_a_record_one_that_cannot_be_read_now_is_enough(
    silent_path, tmp_path, capsys
):
    assert main(["report", str(tmp_path), str(silent_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"; {silent_path} has no record of a run: " in line


def test_a_report_of_the_others_is_written(silent_path, make_run, no_charts, capsys):
    assert main(["report", str(make_run("run", num_experts=0, steps=20)), str(silent_path)]) == 1
    printed = capsys.readouterr()
    assert "page: " in printed.out
    assert printed.err.startswith(f"switch_jax report: {silent_path} has no record of a run: ")
