"""Folders written by hand, with answers computed by hand."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys

import pytest

from switch_jax.checkpointing import lock_run
from switch_jax.reports.run_status import health, page, read_status, table
from switch_jax.run_folder import RunFolder

NOW = 1_800_000_000.0
NOTHING = {"step": 0.0, "data": 0.0, "checkpoint": 0.0, "eval": 0.0, "compile": 0.0, "idle": 0.0}


def record(step, spent, **values):
    """A training record: loss 10 - step / 100."""
    values = {"loss": 10 - step / 100, "skipped_steps": 0, "goodput": 0.5, **values}
    return {"kind": "train", "step": step, "spent": {**NOTHING, **spent}, **values}


def steps_of_ten(first, last, **values):
    """A record every 10 steps, each after 20 s in steps and 1 s of waiting for data."""
    return [
        record(step, {"step": 2.0 * step, "data": 0.1 * step}, **values)
        for step in range(first, last + 1, 10)
    ]


@pytest.fixture
def write(tmp_path):
    """write(lines, written=..., status=..., **facts) writes a run; returns its folder."""

    def write(lines, written=NOW, status=None, **facts):
        folder = tmp_path / "run"
        folder.mkdir()
        metrics = folder / "metrics.jsonl"
        metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
        os.utime(metrics, (written, written))
        (folder / "run.json").write_text(json.dumps({"train_steps": 1000, **facts}))
        if status is not None:
            (folder / "status.json").write_text(json.dumps(status))
        return folder

    return write


def status_json(state="running", started=NOW - 3000, at=NOW - 2000, message=""):
    return {"state": state, "message": message, "time": at, "started": started, "processes": 2}


def test_how_far_a_run_is(write):
    router = {
        "encoder": {
            "layers": [1, 3],
            "load": [[0.5, 0.5, 0, 0], [0.25] * 4],
            "dropped": [0.5, 0.1],
            "entropy": [0.7, 1.4],
        },
        "decoder": {"layers": [1], "load": [[1, 0, 0, 0]], "dropped": [0.3], "entropy": [0.0]},
    }
    lines = [
        {"kind": "eval", "step": 0, "task": "all", "neg_log_perplexity": -9.0},
        *steps_of_ten(10, 190),
        {"kind": "eval", "step": 200, "task": "a", "neg_log_perplexity": -1.0},
        {"kind": "eval", "step": 200, "task": "all", "neg_log_perplexity": -3.5},  # the mean
        *steps_of_ten(
            200,
            200,
            router=router,
            goodput=0.75,
            tokens_per_second=5000.0,
            tokens_per_second_per_chip=1250.0,
        ),
    ]
    status = read_status(write(lines, NOW - 30, status_json()), NOW)
    assert (status.state, status.needs_attention) == ("running", False)
    assert (status.step, status.train_steps, status.loss) == (200, 1000, 8.0)
    assert (status.held_out, status.held_out_task, status.held_out_step) == (-3.5, "all", 200)
    assert (status.tokens_per_second, status.tokens_per_second_per_chip) == (5000, 1250)
    assert status.seconds_left == pytest.approx(800 * 2.1)
    assert (status.goodput, status.silence) == (0.75, 30)
    assert (status.experts, status.dead_experts) == (12, 5)
    assert status.dropped == pytest.approx(0.3)
    assert page(status) == [
        f"{status.folder}: running",
        "  step       200 of 1,000, 28 min left",
        "  loss       8",
        "  held out   negative log perplexity -3.5000 of all at step 200",
        "  speed      5 k tokens/s, 1.25 k per chip",
        "  goodput    75.00 % of 7 min in steps; data 20 s",
        "  checkpoint none yet",
        "  last write 30 s ago; stalled after 120 s",
        "  health     5 of 12 experts got no token; 30.00 % of the tokens dropped",
    ]


def test_the_tasks_own_metrics_come_first(write):
    line = {"kind": "eval", "step": 5, "task": "mine", "neg_log_perplexity": -2.0}
    own = {"generated": {"f1": 48.25, "em": None}, "majority_baseline": {"f1": 52.0}}
    assert page(read_status(write([{**line, **own}]), NOW))[3] == (
        "  held out   generated text: f1 48.25 (majority baseline 52), em -; "
        "negative log perplexity -2.0000 of mine at step 5"
    )


# 21 s between records, so 63 s; 100 s of evaluation and 50 s of a checkpoint come on top.
SLOW = [
    *steps_of_ten(10, 50),
    *(
        record(step, {"step": 2.0 * step, "data": 0.1 * step, "eval": 100.0, "checkpoint": 50.0})
        for step in range(60, 400, 10)
    ),
]


@pytest.mark.parametrize(
    ("lines", "silence", "state", "limit"),
    [
        (steps_of_ten(10, 400), 119, "running", 120),  # 3 x 21 s is below the least
        (steps_of_ten(10, 400), 121, "stalled", 120),
        (SLOW, 212, "running", 213),
        (SLOW, 214, "stalled", 213),
    ],
)
def test_a_stall_is_silence_beyond_the_usual(write, lines, silence, state, limit):
    status = read_status(
        write(lines, NOW - silence, status_json(at=NOW - 5000, started=NOW - 6000)), NOW
    )
    assert status.silence_limit == pytest.approx(limit)
    assert (status.state, status.needs_attention) == (state, state == "stalled")
    assert (status.message == "") == (state == "running")


@pytest.fixture
def killed():
    """The text of the lock that a process of this host had, which is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return f"process {process.pid} on {socket.gethostname()}\n"


def test_a_run_whose_process_was_killed_on_this_host_is_stalled(write, killed):
    folder = write(steps_of_ten(10, 400), NOW - 1, status_json())
    assert read_status(folder, NOW).state == "running"
    (folder / "lock").write_text(killed)
    status = read_status(folder, NOW)
    assert (status.state, status.needs_attention) == ("stalled", True)
    assert status.message.startswith(f"{killed.strip()} is gone and did not write why (killed, or")
    assert read_status(folder, NOW + 1e6).message == status.message, "not that it is silent"
    (folder / "status.json").write_text(json.dumps(status_json("finished")))
    assert read_status(folder, NOW).state == "finished"


def test_a_run_that_has_its_lock_or_is_on_another_host_runs(write, killed):
    folder = write(steps_of_ten(10, 400), NOW - 1, status_json())
    (folder / "lock").write_text("process 1 on another-host\n")
    assert read_status(folder, NOW).state == "running"
    with contextlib.closing(lock_run(RunFolder(folder))):
        assert read_status(folder, NOW).state == "running"
    assert read_status(folder, NOW).state == "stalled"


def test_waiting_for_data_is_unusual(write):
    lines = [record(10, {"step": 5.0, "data": 37.0, "idle": 1.0, "compile": 60.0})]
    # 37 / 43
    (found,) = health(read_status(write(lines), NOW))
    assert found.startswith("86.05 % of the time without compilation, evaluations and checkpoints ")


@pytest.mark.parametrize(
    ("losses", "rise"),
    [
        ((6, 7, 8, 9), "the loss has risen from 6.5 to 8.5: is LEARNING_RATE too high, or is "),
        ((6, 8, 9), None),  # too few to tell
        ((10, 10, 10.9, 10.9), None),  # less than a tenth
        ((2, 2, 2, 2, 2, 1, 1, 9, 3, 3, None, 3, 3, 3), "the loss has risen from 2 to 3: is"),
        ((6, 6, 6, 6, 6, 90, 90, 5, 5, 5, 5, 5), None),
    ],
)
def test_a_loss_that_has_risen_is_unusual(write, losses, rise):
    lines = [record(10 * i, {}, loss=loss) for i, loss in enumerate(losses, 1)]
    found = health(read_status(write(lines), NOW))
    assert [text.startswith(rise) for text in found] == [True] if rise else found == []


def test_after_a_start_there_is_time_to_compile(write):
    lines = [record(10, {"step": 20.0, "compile": 900.0}), *steps_of_ten(20, 40)]
    folder = write(lines, NOW - 9000, status_json("starting", started=NOW - 2000, at=NOW - 2000))
    status = read_status(folder, NOW)
    assert (status.state, status.silence) == ("starting", 2000)
    assert status.silence_limit == 120 + 3 * 900
    assert read_status(folder, NOW + 900).state == "stalled"


def test_the_first_start_may_take_half_an_hour(write):
    folder = write([], status=status_json("starting", started=NOW, at=NOW))
    (folder / "metrics.jsonl").unlink()
    status = read_status(folder, NOW + 1900)
    assert (status.state, status.step, status.loss) == ("starting", 0, None)
    assert page(status)[1:4] == ["  step       0 of 1,000", "  loss       -", "  held out   -"]
    assert read_status(folder, NOW + 1950).state == "stalled"


@pytest.mark.parametrize(
    ("state", "attention"), [("finished", False), ("stopped", False), ("failed", True)]
)
def test_how_a_run_ended(write, state, attention):
    folder = write(steps_of_ten(10, 400), NOW - 9000, status_json(state, message="because"))
    status = read_status(folder, NOW)
    assert (status.state, status.message, status.needs_attention) == (state, "because", attention)
    early = "finished early" if state == "finished" else state
    assert page(status)[0] == f"{folder}: {early}: because"


def test_a_folder_that_convert_made_is_not_running(write):
    folder = write([])
    (folder / "metrics.jsonl").unlink()
    status = read_status(folder, NOW)
    assert (status.state, status.message) == ("stopped", "it has no record of any training")


def test_the_last_checkpoint_and_its_age(write):
    folder = write(steps_of_ten(10, 200), NOW - 300, status_json())
    for step, age in ((90, 10.0), (100, 60.0)):
        (folder / f"checkpoints/{step}").mkdir(parents=True)
        saved = {"commit_timestamp_nsecs": int((NOW - age) * 1e9)}
        (folder / f"checkpoints/{step}/_CHECKPOINT_METADATA").write_text(json.dumps(saved))
    (folder / "checkpoints/110.orbax-checkpoint-tmp").mkdir()
    status = read_status(folder, NOW)
    assert status.checkpoint == 100
    assert status.checkpoint_age == pytest.approx(60)
    assert status.silence == pytest.approx(60)  # the checkpoint is the last write
    (folder / "checkpoints/100/_CHECKPOINT_METADATA").write_text("{")
    status = read_status(folder, NOW)
    assert (status.checkpoint, status.checkpoint_age) == (100, None)


def skipped(step, batch):
    return {"kind": "skipped", "step": step, "batch": batch, "loss": None, "gradient_norm": None}


def test_what_went_wrong_on_the_way(write):
    lines = [
        *steps_of_ten(10, 50),
        skipped(53, 53),  # in an attempt that was lost
        skipped(53, 53),
        skipped(54, 54),
        {"kind": "rollback", "step": 60, "bad_steps": 9, "back_to": 50},
        *steps_of_ten(50, 70),  # that of step 50 stands in the earlier one's place
        skipped(53, 63),
    ]
    folder = write(lines, status=status_json())
    for name in ("damaged/40_1", "damaged/30_2"):
        (folder / name).mkdir(parents=True)
    status = read_status(folder, NOW)
    assert (status.skipped_steps, status.rollbacks) == (3, 1)
    assert health(status) == [
        "bad steps skipped: 3",
        "returns to a checkpoint: 1",
        "damaged checkpoints: 30_2, 40_1",
    ]


def test_without_run_json_the_planned_steps_are_not_known(write):
    folder = write(steps_of_ten(10, 60))
    (folder / "run.json").unlink()
    status = read_status(folder, NOW)
    assert status.train_steps is None and "  step       60" in page(status)


def test_a_line_for_each_of_several(write):
    lines = steps_of_ten(10, 500, tokens_per_second=123456.0)
    status = read_status(write(lines, NOW - 9, status_json()), NOW)
    heading, line = table([status])
    assert heading.split() == "run state step loss tokens/s left checkpoint health".split()
    cells = ["running", "500/1,000", "5", "123 k", "17.5 min", "-", "-"]
    assert re.split(" {2,}", line) == [status.folder, *cells]
