import contextlib
import errno
import gzip
import json
import os
import signal
import threading

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from switch_jax.checkpointing import chosen_step, lock_run
from switch_jax.data.reading.prefetch import Prefetch
from switch_jax.evaluation.teacher_forced import TeacherForcedEvaluation
from switch_jax.monitoring import MetricWriter
from switch_jax.reports.run_status import read_status
from switch_jax.run_folder import RunFolder
from switch_jax.trainer import loop
from switch_jax.trainer import train as train_module
from switch_jax.trainer.instruments import closed_by
from switch_jax.trainer.signals import Stopped, StopSignals
from switch_jax.utils.errors import UserError, storage_error
from tests.run_folder.documented import problems, table_of, tables
from tests.trainer.tiny_runs import records_of, step_hashes, train_tiny
from tests.waiting import HANGS


def test_what_a_run_leaves_behind(whole):
    folder, state = whole
    assert int(state.step) == 6
    assert (folder / "config.gin").read_text().startswith("# config\n")
    assert sorted(int(p.name) for p in (folder / "checkpoints").iterdir()) == [3, 6]
    assert list((folder / "tensorboard").glob("events.*"))
    description = json.loads((folder / "run.json").read_text())
    assert description["num_experts"] == 4
    assert description["active_parameters"] < description["parameters"]
    assert description["mesh"] == {"data": 1, "expert": 2, "model": 1}
    records = records_of(folder, "train")
    # Every 2 steps, and before each checkpoint (3, 6): none is ahead of the metrics.
    assert [r["step"] for r in records] == [2, 3, 4, 6]
    router = records[-1]["router"]["encoder"]
    assert (router["layers"], router["sublayers"]) == ([0], ["feed_forward"])
    np.testing.assert_allclose(np.sum(router["load"], 1), 1.0, rtol=1e-5)
    assert 0 <= router["dropped"][0] < 1 and 0 < router["entropy"][0] <= np.log(4)
    assert records[-1]["neg_log_perplexity"] == -records[-1]["cross_entropy"]
    assert 0 < records[0]["seconds"] < records[-1]["seconds"]


def test_a_trace_lies_where_tensorboard_looks_and_names_the_steps(whole):
    profile = whole[0] / "tensorboard/plugins/profile"
    assert list(profile.glob("*/*.xplane.pb"))
    (trace,) = profile.glob("*/*.trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    marks = {event["args"]["step_num"] for event in events if event.get("name") == "train"}
    assert marks == {"2", "3"}


def test_what_a_run_writes_is_as_documented(whole):
    folder, _ = whole
    records = [*records_of(folder, "train"), *records_of(folder, "eval")]
    assert [p for record in records for p in problems(record, table_of(record["kind"]))] == []
    written = {field for record in records for field in record}
    documented = {field for kind in ("train", "eval") for field in table_of(kind)}
    # The peak of a CPU is not known, there is no teacher; tests of infer_eval have the last three.
    # Requests are counted once this process has repeated some, as tests of buckets do.
    absent = {field for field in documented if "." not in field} - written
    assert absent - {"repeated_requests"} == {
        "model_flops_utilisation",
        "soft_cross_entropy",
        "examples",
        "generated",
        "majority_baseline",
    }
    for file in ("run.json", "status.json"):
        content = json.loads((folder / file).read_text())
        assert problems(content, tables()[file]) == []
        assert {field for field in tables()[file] if "." not in field} == set(content)


def test_what_the_status_of_a_run_says(whole):
    status = read_status(whole[0])
    assert (status.state, status.step, status.train_steps, status.checkpoint) == (
        "finished", 6, 6, 6
    )  # fmt: skip
    last = records_of(whole[0], "train")[-1]
    assert (status.loss, status.spent, status.experts) == (last["loss"], last["spent"], 2 * 4)
    assert status.held_out == records_of(whole[0], "eval")[-1]["neg_log_perplexity"]
    assert 0 <= status.checkpoint_age < 3600


def test_a_finished_run_stays_as_it_is(whole, capsys, monkeypatch):
    folder, state = whole
    again = train_tiny(folder, 6)
    assert "step 6 of 6: nothing to do" in capsys.readouterr().out
    np.testing.assert_array_equal(again.step, state.step)
    monkeypatch.setattr(train_module, "is_first", lambda: False)
    train_tiny(folder, 6)
    assert "nothing to do" not in capsys.readouterr().out


def test_a_save_that_fails_stops_the_run_with_one_line(tmp_path, monkeypatch, capsys):
    class Failed:
        def result(self, timeout=None):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full(self, step, *_, **__):
        monkeypatch.setattr(MetricWriter, "close", fail_too)
        return Failed()

    def fail_too(self):
        raise storage_error("metrics cannot be written either", OSError(errno.ENOSPC, "full"))

    monkeypatch.setattr(ocp.training.Checkpointer, "save_async", full)
    with pytest.raises(UserError, match="^checkpoints cannot be .*No space left on device; what w"):
        train_tiny(tmp_path, 9, log_period=1)
    assert records_of(tmp_path, "train")[-1]["step"] == 3, "no step after the save of step 3"
    assert capsys.readouterr().err == ""


def test_an_error_of_closing_with_another_cause_is_shown_beside_the_first(capsys):
    def close():
        raise storage_error("checkpoints cannot be written", OSError(errno.ENOSPC, "full"))

    with pytest.raises(UserError, match="^a task fails$"), contextlib.ExitStack() as closing:
        closing.push(closed_by(close))
        raise UserError("a task fails")
    told = "switch_jax train: and as the run was closed: checkpoints cannot be written\n"
    assert capsys.readouterr().err == told


def test_the_best_checkpoint_stays_and_the_run_stops_early(tmp_path, monkeypatch, capsys):
    """Where another metric chooses it, it is sought anew: -2.5 is less than the accuracy 0.4."""
    scores = iter([(-9, 0.1), (-8, 0.4), (-7, 0.2), (-2.5, 0), (-1.5, 0), (-2.0, 0), (-3.0, 0)])

    def evaluate(self, state):
        names = ("neg_log_perplexity", "accuracy", "tokens")
        return {"mine": dict(zip(names, (*next(scores), 9.0), strict=True))}

    monkeypatch.setattr(TeacherForcedEvaluation, "__call__", evaluate)
    changes = {
        "eval_period": 1, "checkpoint_period": 1, "keep_checkpoints": 1, "early_stopping_evals": 2
    }  # fmt: skip
    train_tiny(tmp_path, 2, best_metric="accuracy", **changes)
    assert RunFolder(tmp_path).checkpoint_steps() == [1, 2]
    train_tiny(tmp_path, 50, **changes)
    told = capsys.readouterr().out
    assert told.count("evaluating before the first step\nstep 0: ") == 1
    assert "sought anew (BEST_METRIC 'accuracy' -> 'neg_log_perplexity'): evaluations and" in told
    assert "no better neg_log_perplexity than that of step 4 in 2 evaluations" in told
    assert RunFolder(tmp_path).checkpoint_steps() == [4, 6]
    assert chosen_step(tmp_path, "best") == 4
    train_tiny(tmp_path, 50, **changes)
    assert "at step 6 of 50: nothing to do" in capsys.readouterr().out


def test_a_second_job_in_the_folder_is_refused(tmp_path):
    lock = lock_run(RunFolder(tmp_path))
    with pytest.raises(UserError, match=f"in use by process {os.getpid()} on"):
        train_tiny(tmp_path, 3)
    lock.close()


def test_a_signal_saves_and_stops_the_run(whole, tmp_path, at_each_batch):
    numbers = {4}

    def send(batch, number):
        if number in numbers:
            os.kill(os.getpid(), signal.SIGTERM)

    at_each_batch(send)
    with pytest.raises(Stopped, match="the state of step . is saved") as stopped:
        train_tiny(tmp_path, 6, checkpoint_period=100)
    assert stopped.value.exit_code == 75
    assert read_status(tmp_path).state == "stopped"
    numbers.clear()
    resumed = train_tiny(tmp_path, 6)
    jax.tree.map(np.testing.assert_array_equal, resumed, whole[1])


@pytest.fixture
def stall(monkeypatch, at_each_batch):
    """Has the data stop before a batch, by number from 1, and SIGTERM come when none are left."""
    stalled, go_on = threading.Event(), threading.Event()

    def stall(at):
        def wait(batch, number):
            if number == at:
                stalled.set()
                go_on.wait(HANGS)

        class Waiting(Prefetch):
            def is_ready(self, seconds):
                ready = super().is_ready(seconds)
                if not ready and stalled.is_set():
                    os.kill(os.getpid(), signal.SIGTERM)
                return ready

        stalled.clear()
        at_each_batch(wait)
        monkeypatch.setattr(train_module, "Prefetch", Waiting)
        monkeypatch.setattr(loop, "_PATIENCE", 0.05)

    yield stall
    go_on.set()


def test_a_time_out_of_the_data_themselves_is_no_batch_that_is_still_to_come(
    tmp_path, at_each_batch, monkeypatch
):
    failed = threading.Event()

    def fail(batch, number):
        if number == 2:
            failed.set()
            raise TimeoutError("the archive does not answer")

    at_each_batch(fail)
    monkeypatch.setattr(loop, "_PATIENCE", HANGS)
    monkeypatch.setattr(StopSignals, "is_wanted", lambda self: failed.is_set())
    with pytest.raises(TimeoutError, match="the archive does not answer"):
        train_tiny(tmp_path, 6)


def test_a_run_that_its_data_stop_again_and_again_ends_as_if_they_had_not(
    whole, tmp_path, stall, at_each_batch, capsys
):
    stall(1)
    with pytest.raises(Stopped, match="asked to terminate: no step was done; the same command"):
        train_tiny(tmp_path, 6)
    assert RunFolder(tmp_path).checkpoint_steps() == []

    stall(3)
    with pytest.raises(Stopped, match="the state of step 2 is saved") as stopped:
        train_tiny(tmp_path, 6)
    assert stopped.value.exit_code == 75
    assert RunFolder(tmp_path).checkpoint_steps() == [2]

    stall(4)  # right after the checkpoint of step 3: it stays as it is
    with pytest.raises(Stopped, match="the state of step 3 is saved"):
        train_tiny(tmp_path, 6)
    assert RunFolder(tmp_path).checkpoint_steps() == [2, 3]

    def end(batch, number):
        if number == 6:
            raise UserError("the file is gone")

    stall(None)
    at_each_batch(end)
    with pytest.raises(UserError, match="the file is gone"):
        train_tiny(tmp_path, 6)
    assert "the state of step 5 is saved" in capsys.readouterr().out

    at_each_batch(lambda batch, number: None)
    resumed = train_tiny(tmp_path, 6)
    assert "continuing from the checkpoint of step 5" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, resumed, whole[1])
    assert step_hashes(tmp_path) == step_hashes(whole[0])
    assert records_of(tmp_path, "skipped") == []
    ours, theirs = (records_of(folder, "eval") for folder in (tmp_path, whole[0]))
    assert [r["step"] for r in ours] == [0, 0, 3, 6]
    assert ours[-1]["neg_log_perplexity"] == theirs[-1]["neg_log_perplexity"]
