"""Each job is a script: what its attempts end with, and the last checkpoint after each."""

import signal

import pytest

from switch_jax.errors import UserError
from switch_jax.launch import retries
from switch_jax.launch.retries import exit_code, supervise
from switch_jax.run_folder import RunFolder


def supervised(codes, steps=None, max_restarts=3, first=None):
    """Returns the exit code, how many attempts there were, and what was said."""
    attempts, said = iter(codes), []
    left = [first, *(steps or [first] * len(codes))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retries, "log", said.append)
        patch.setattr(retries, "_newest_step", lambda folder: left.pop(0))
        code = supervise(lambda: next(attempts), max_restarts, RunFolder.at("run"))
    return code, len(codes) - len(list(attempts)), said


@pytest.mark.parametrize("code", [0, 2, 3, 130])
def test_done_a_mistake_and_ctrl_c_are_the_end(code):
    assert supervised([code, 0]) == (code, 1, [])


def test_a_crash_is_started_again_from_the_checkpoint():
    code, attempts, said = supervised([137, 0], steps=[500, 500], first=500)
    assert (code, attempts) == (0, 2)
    (line,) = said
    assert "exit code 137" in line
    assert "checkpoint of step 500, restart 1 of at most 3" in line


def test_crashes_without_a_checkpoint_are_counted():
    code, attempts, said = supervised([1, 134, 137, 139, 0])
    assert (code, attempts) == (139, 4)
    assert "from the beginning, restart 3 of at most 3" in said[2]
    assert "exit code 139 after 3 restarts without a new checkpoint: giving up" in said[3]


def test_a_new_checkpoint_begins_the_count_anew():
    # Three crashes at step 5, then three with step 10 saved: only the seventh is one too many.
    codes, steps = [1] * 7, [5, 5, 5, 10, 10, 10, 10]
    code, attempts, _ = supervised([*codes, 0], [*steps, 10], max_restarts=3)
    assert (code, attempts) == (1, 7)


def test_a_run_that_went_back_has_not_got_on():
    code, attempts, _ = supervised([1, 1, 0], [5, 5, 5], max_restarts=1, first=10)
    assert (code, attempts) == (1, 2)


def test_checkpoints_that_cannot_be_listed_for_once_are_no_progress():
    code, attempts, said = supervised([1, 1, 1, 0], [None, 5, 5, 5], max_restarts=1, first=5)
    assert (code, attempts) == (1, 2)
    assert "from the checkpoint of step 5" in said[0]


@pytest.fixture
def slept(monkeypatch):
    """The pauses, in seconds; none is made."""
    pauses = []
    monkeypatch.setattr(retries.time, "sleep", pauses.append)
    return pauses


def test_a_host_that_cannot_be_reached_is_waited_for_and_does_not_count(slept):
    code, attempts, said = supervised([255] * 6 + [1, 255, 0], max_restarts=1)
    assert (code, attempts) == (0, 9)
    assert slept == [30, 60, 120, 240, 300, 300, 30]  # and from the start once it was there
    assert said[1] == "a host cannot be reached (exit code 255): starting again in 60 s"


def test_a_host_that_cannot_be_reached_for_an_hour_is_a_crash(slept):
    code, attempts, said = supervised([255] * 20, max_restarts=1)
    assert (code, attempts) == (255, 17)
    assert 3600 <= sum(slept) < 2 * 3600
    assert "giving up" in said[-1]


def test_preemptions_do_not_count():
    code, attempts, said = supervised([75] * 10 + [1, 75, 0], max_restarts=1)
    assert (code, attempts) == (0, 13)
    assert said[0] == "preempted (exit code 75): starting again from the beginning"


def test_a_job_that_is_asked_to_stop_is_not_started_again(monkeypatch):
    received, said = [], []
    monkeypatch.setattr(retries, "_newest_step", lambda folder: None)
    monkeypatch.setattr(retries, "log", said.append)

    def asked_while_it_runs():
        received.append(signal.SIGTERM)
        return 75

    assert supervise(asked_while_it_runs, 3, RunFolder.at("run"), received) == 75
    assert received == [signal.SIGTERM] and said == []


def test_a_job_that_is_asked_to_stop_between_two_attempts_ends_as_a_shell_tells_of_signals(
    monkeypatch,
):
    received, codes = [], iter([1])
    monkeypatch.setattr(retries, "_newest_step", lambda folder: None)
    monkeypatch.setattr(retries, "log", lambda _: received.append(signal.SIGINT))
    assert supervise(lambda: next(codes), 3, RunFolder.at("run"), received) == 130


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([0, 0, 0], 0),
        ([0, 1], 1),
        ([134, 1, 0], 134),  # of crashes the first
        ([75, 75], 75),
        ([75, 134, 0], 75),  # it crashed as it ended, all being saved
        ([75, 130], 130),
        ([134, 2, 1], 2),
        ([75, 2], 2),
        ([1, 3], 3),
        ([2, 137], 137),  # the others may end with anything once one was killed
        ([1, 137, 2], 137),
        ([2, 255], 255),  # and of one that cannot be reached nobody knows
        ([137, 255], 255),
        ([], 0),
    ],
)
def test_which_exit_code_is_the_job_s(codes, expected):
    assert exit_code(codes) == expected


def test_checkpoints_that_cannot_be_listed_do_not_end_the_job(monkeypatch):
    def unknown(folder):
        raise UserError("the folder cannot be read")

    said = []
    monkeypatch.setattr(RunFolder, "checkpoint_steps", unknown)
    monkeypatch.setattr(retries, "log", said.append)
    codes = iter([1, 0])
    assert supervise(lambda: next(codes), 3, RunFolder.at("run")) == 0
    assert said[0] == "whether there is a new checkpoint is not known: the folder cannot be read"
