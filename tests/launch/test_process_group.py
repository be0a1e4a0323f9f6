"""Small programs in the place of training processes."""

import signal
import threading
import time

import pytest

from switch_jax.launch import process_group
from switch_jax.launch.process_group import run_together
from tests.waiting import HANGS, wait_until

# A process that waits in a collective for one that is gone: signals change nothing. Each program
# makes its file once it is so far.
DEAF = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "open(sys.argv[1], 'w').close(); time.sleep(10_000)"
)
# Ends when it is asked to, as training does.
TOLD = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
    "signal.signal(signal.SIGINT, lambda *_: sys.exit(130))\n"
    "open(sys.argv[1], 'w').close(); time.sleep(10_000)"
)
# Ends in a way of its own once all others are so far.
_WHEN_ALL_ARE = (
    "import os, signal, sys, time\n"
    "while not all(map(os.path.exists, sys.argv[2:])): time.sleep(0.01)\n"
)
KILLS_ITSELF = _WHEN_ALL_ARE + "os.kill(os.getpid(), signal.SIGKILL)"


def ends(code):
    return _WHEN_ALL_ARE + f"sys.exit({code})"


@pytest.fixture
def run(tmp_path):
    """run(*programs) returns the exit code; `signals` come once all programs are so far."""

    def run(*programs, signals=()):
        files = [str(tmp_path / str(i)) for i in range(len(programs))]
        commands = [
            ["python", "-c", program, file, *(other for other in files if other != file)]
            for program, file in zip(programs, files, strict=True)
        ]
        sent = []

        def send():
            wait_until(lambda: len(list(tmp_path.iterdir())) == len(programs))
            sent.extend(signals)

        sender = threading.Thread(target=send)
        if signals:
            sender.start()
        start = time.monotonic()
        code = run_together(commands, {}, sent)
        assert time.monotonic() - start < HANGS, "it has waited for the deaf"
        return code

    return run


def test_lines_of_all_go_to_standard_error(run, capfd):
    programs = [f"import sys; print('out {i}'); print('err {i}', file=sys.stderr)" for i in (0, 1)]
    assert run(*programs) == 0
    printed = [line for line in capfd.readouterr().err.splitlines() if line.startswith("[")]
    assert sorted(printed) == ["[0] err 0", "[0] out 0", "[1] err 1", "[1] out 1"]


def test_after_a_crash_the_others_are_ended_even_if_deaf(run, monkeypatch, capfd):
    monkeypatch.setattr(process_group, "_FAILURE_GRACE", 0.5)
    start = time.monotonic()
    assert run(DEAF, ends(7), DEAF) == 7  # and not 137 of those that were killed from here
    assert time.monotonic() - start > 0.5
    assert "process 1 has ended with exit code 7: ending the others" in capfd.readouterr().err


def test_after_a_kill_the_others_are_asked_to_end(run):
    asleep = "import sys, time; open(sys.argv[1], 'w').close(); time.sleep(10_000)"
    assert run(asleep, KILLS_ITSELF) == 137  # and not 143 of the one that was ended from here


def test_one_that_is_done_does_not_end_the_others(run):
    later = "import sys, time; open(sys.argv[1], 'w').close(); time.sleep(0.5)"
    assert run(ends(0), later) == 0


def test_after_one_was_preempted_the_others_have_time_to_save(run, tmp_path, monkeypatch):
    monkeypatch.setattr(process_group, "_FAILURE_GRACE", 0.0)
    monkeypatch.setattr(process_group, "_SAVE_GRACE", HANGS)
    saved = tmp_path / "saved"
    saving = TOLD.replace("sleep(10_000)", f"sleep(1); open({str(saved)!r}, 'w').close()")
    assert run(ends(75), saving) == 75
    assert saved.exists()


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_reaches_all(run, number, expected):
    assert run(TOLD, TOLD, signals=[number]) == expected


def test_after_a_second_signal_nobody_waits_for_the_deaf(run, monkeypatch):
    monkeypatch.setattr(process_group, "_FAILURE_GRACE", 0.5)
    assert run(DEAF, signals=[signal.SIGTERM, signal.SIGTERM]) == 137


def test_no_process_is_left_behind_by_an_error(run, monkeypatch):
    started = []

    def start(*args, **kwargs):
        if len(started) == 2:
            raise BlockingIOError("no more processes")
        started.append(popen(*args, **kwargs))
        return started[-1]

    popen = process_group.subprocess.Popen
    monkeypatch.setattr(process_group.subprocess, "Popen", start)
    with pytest.raises(BlockingIOError):
        run(DEAF, DEAF, DEAF)
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2
