"""Folders written by hand, with answers computed by hand."""

import contextlib
import json
import os
import re

import pytest

from switch_jax.checkpointing import lock_run
from switch_jax.reports.run_status import health, page, read_status, table
from switch_jax.run_folder import RunFolder
from tests.reports.by_hand import write_lines

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
        folder = write_lines(tmp_path / "run", lines)
        os.utime(folder / "metrics.jsonl", (written, written))
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
            "sublayers": ["feed_forward"] * 2,
            "load": [[0.5, 0.5, 0, 0], [0.25] * 4],
            "dropped": [0.5, 0.1],
            "entropy": [0.7, 1.4],
        },
        "decoder": {"layers": [1], "load": [[1, 0, 0, 0]], "dropped": [0.3], "entropy": [0.0]},
    }
    router["decoder"]["sublayers"] = ["feed_forward"]
    speed = {"tokens_per_second": 5000.0, "tokens_per_second_per_chip": 1250.0}
    lines = [
        {"kind": "eval", "step": 0, "task": "all", "neg_log_perplexity": -9.0},
        *steps_of_ten(10, 190),
        {"kind": "eval", "step": 200, "task": "a", "neg_log_perplexity": -1.0},
        {"kind": "eval", "step": 200, "task": "all", "neg_log_perplexity": -3.5},  # the mean
        *steps_of_ten(200, 200, router=router, goodput=0.75, **speed),
    ]
    status = read_status(write(lines, NOW - 30, status_json()), NOW)
    assert page(status) == [
        f"{status.folder}: running",
        "  step       200 of 1,000, 28 min left",  # of 2.1 s for a step
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
    ("lines", "limit"),
    [(steps_of_ten(10, 400), 120), (SLOW, 213)],  # 3 x 21 s is below the least
)
def test_a_stall_is_silence_beyond_the_usual(write, lines, limit):
    folder = write(lines, NOW - limit, status_json(at=NOW - 5000, started=NOW - 6000))
    status = read_status(folder, NOW - 1)
    assert status.silence_limit == pytest.approx(limit)
    assert (status.state, status.needs_attention, status.message) == ("running", False, "")
    status = read_status(folder, NOW + 1)
    assert (status.state, status.needs_attention) == ("stalled", True)
    assert status.message.startswith("nothing was written for ")


def test_a_run_whose_process_was_killed_on_this_host_is_stalled(write):
    folder = write(steps_of_ten(10, 400), NOW - 1, status_json())
    assert read_status(folder, NOW).state == "running"
    (folder / "lock").write_text("process 1 on another-host\n")
    assert read_status(folder, NOW).state == "running"
    with contextlib.closing(lock_run(RunFolder(folder))):
        assert read_status(folder, NOW).state == "running"
    status = read_status(folder, NOW)
    assert (status.state, status.needs_attention) == ("stalled", True)
    holder = (folder / "lock").read_text().strip()  # its name stays there, as of a killed process
    assert status.message.startswith(f"{holder} is gone and did not write why (killed, or out of")
    assert read_status(folder, NOW + 1e6).message == status.message, "not that it is silent"
    (folder / "status.json").write_text(json.dumps(status_json("finished")))
    assert read_status(folder, NOW).state == "finished"


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


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_how_a_run_ended(write, state):
    folder = write(steps_of_ten(10, 400), NOW - 9000, status_json(state, message="because"))
    early = "finished early" if state == "finished" else state
    assert page(read_status(folder, NOW))[0] == f"{folder}: {early}: because"


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


def test_a_line_for_each_of_several(write):
    lines = steps_of_ten(10, 500, tokens_per_second=123456.0)
    status = read_status(write(lines, NOW - 9, status_json()), NOW)
    heading, line = table([status])
    assert heading.split() == "run state step loss tokens/s left checkpoint health".split()
    cells = ["running", "500/1,000", "5", "123 k", "17.5 min", "-", "-"]
    assert re.split(" {2,}", line) == [status.folder, *cells]
