"""Each job is a script: what its attempts end with, and the last checkpoint after each."""

import signal

import pytest

from switch_jax.launch import restarts
from switch_jax.launch.restarts import exit_code, supervise
from switch_jax.run_folder import RunFolder
from switch_jax.utils.errors import UserError

RUN = RunFolder.at("run")


@pytest.fixture
def said(monkeypatch):
    """What is said."""
    lines = []
    monkeypatch.setattr(restarts, "log", lines.append)
    return lines


@pytest.fixture
def slept(monkeypatch):
    """The pauses, in seconds; none is made."""
    pauses = []
    monkeypatch.setattr(restarts.time, "sleep", pauses.append)
    return pauses


@pytest.fixture
def supervised(monkeypatch, said):
    """supervised(codes, steps): the exit code, and how many attempts there were."""

    def supervised(codes, steps=None, max_restarts=3, first=None):
        attempts = iter(codes)
        left = [first, *(steps or [first] * len(codes))]
        monkeypatch.setattr(restarts, "_newest_step", lambda folder: left.pop(0))
        code = supervise(lambda: next(attempts), max_restarts, RUN)
        return code, len(codes) - len(list(attempts))

    return supervised


@pytest.mark.parametrize("code", [0, 2, 3, 130])
def test_done_a_mistake_and_ctrl_c_are_the_end(code, supervised, said):
    assert supervised([code, 0]) == (code, 1)
    assert said == []


@pytest.mark.parametrize(
    ("codes", "steps", "max_restarts", "first", "expected", "told"),
    [
        # A crash is started again from the checkpoint.
        ([137, 0], [500, 500], 3, 500, (0, 2), "checkpoint of step 500, restart 1 of at most 3"),
        ([1, 134, 137, 139, 0], None, 3, None, (139, 4), "139 after 3 restarts without a new che"),
        # Three crashes at step 5, then three with step 10 saved: only the seventh is one too many.
        ([1] * 7 + [0], [5, 5, 5, *[10] * 5], 3, 5, (1, 7), "giving up"),
        # A run that went back has not got on.
        ([1, 1, 0], [5, 5, 5], 1, 10, (1, 2), "giving up"),
        # Checkpoints that cannot be listed for once are no progress.
        ([1, 1, 1, 0], [None, 5, 5, 5], 1, 5, (1, 2), "from the checkpoint of step 5"),
        # Preemptions do not count.
        ([75] * 10 + [1, 75, 0], None, 1, None, (0, 13), "preempted (exit code 75): starting aga"),
    ],
)
def test_crashes_without_a_new_checkpoint_are_counted(
    codes, steps, max_restarts, first, expected, told, supervised, said
):
    assert supervised(codes, steps, max_restarts, first) == expected
    assert told in "\n".join(said)


def test_a_host_that_cannot_be_reached_is_waited_for_and_does_not_count(slept, supervised, said):
    assert supervised([255] * 6 + [1, 255, 0], max_restarts=1) == (0, 9)
    assert slept == [30, 60, 120, 240, 300, 300, 30]  # and from the start once it was there
    assert said[1] == "a host cannot be reached (exit code 255): starting again in 60 s"


def test_a_host_that_cannot_be_reached_for_an_hour_is_a_crash(slept, supervised, said):
    assert supervised([255] * 20, max_restarts=1) == (255, 17)
    assert 3600 <= sum(slept) < 2 * 3600
    assert "giving up" in said[-1]


def test_a_job_that_is_asked_to_stop_between_two_attempts_ends_as_a_shell_tells_of_signals(
    monkeypatch,
):
    received, codes = [], iter([1])
    monkeypatch.setattr(restarts, "_newest_step", lambda folder: None)
    monkeypatch.setattr(restarts, "log", lambda _: received.append(signal.SIGINT))
    assert supervise(lambda: next(codes), 3, RUN, received) == 130


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


def test_checkpoints_that_cannot_be_listed_do_not_end_the_job(monkeypatch, said):
    def unknown(folder):
        raise UserError("the folder cannot be read")

    monkeypatch.setattr(RunFolder, "checkpoint_steps", unknown)
    codes = iter([1, 0])
    assert supervise(lambda: next(codes), 3, RUN) == 0
    assert said[0] == "whether there is a new checkpoint is not known: the folder cannot be read"
