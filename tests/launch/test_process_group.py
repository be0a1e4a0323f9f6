"""Small programs in the place of training processes."""

import signal
import threading
import time

import pytest

from switch_jax.launch import process_group
from switch_jax.launch.process_group import run_together

# A process that waits in a collective for one that is gone: signals change nothing.
DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('waiting', flush=True); time.sleep(60)"
)
# Ends when it is asked to, as training does.
TOLD = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
    "signal.signal(signal.SIGINT, lambda *_: sys.exit(130))\n"
    "print('waiting', flush=True); time.sleep(60)"
)


def ends(code, after=0.0):
    return f"import sys, time; time.sleep({after}); sys.exit({code})"


KILLS_ITSELF = "import os, signal, time; time.sleep(0.5); os.kill(os.getpid(), signal.SIGKILL)"


def run(*programs, signals=()):
    """Returns the exit code and how long it took."""
    start = time.monotonic()
    commands = [["python", "-c", program] for program in programs]
    code = run_together(commands, {}, signals)
    return code, time.monotonic() - start


def test_lines_of_all_go_to_standard_error(capfd):
    programs = [f"import sys; print('out {i}'); print('err {i}', file=sys.stderr)" for i in (0, 1)]
    assert run(*programs)[0] == 0
    printed = [line for line in capfd.readouterr().err.splitlines() if line.startswith("[")]
    assert sorted(printed) == ["[0] err 0", "[0] out 0", "[1] err 1", "[1] out 1"]


def test_after_a_crash_the_others_are_ended_even_if_deaf(monkeypatch, capfd):
    monkeypatch.setattr(process_group, "_FAILURE_GRACE", 1.0)
    code, seconds = run(DEAF, ends(7, after=0.5), DEAF)
    assert code == 7  # and not 137 of those that were killed from here
    assert 1.5 < seconds < 20
    assert "process 1 has ended with exit code 7: ending the others" in capfd.readouterr().err


def test_after_a_kill_the_others_are_asked_to_end():
    code, seconds = run("import time; time.sleep(60)", KILLS_ITSELF)
    assert code == 137  # and not 143 of the one that was ended from here
    assert seconds < 20


def test_one_that_is_done_does_not_end_the_others():
    assert run(ends(0), ends(0, after=1.0))[0] == 0


def test_after_one_was_preempted_the_others_have_time_to_save(tmp_path, monkeypatch):
    monkeypatch.setattr(process_group, "_FAILURE_GRACE", 0.1)
    saved = tmp_path / "saved"
    saving = TOLD.replace("time.sleep(60)", f"time.sleep(2); open({str(saved)!r}, 'w').close()")
    assert run(ends(75, after=0.5), saving)[0] == 75
    assert saved.exists()


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_reaches_all(number, expected):
    signals = []
    timer = threading.Timer(1.5, signals.append, [number])
    timer.start()
    code, seconds = run(TOLD, TOLD, signals=signals)
    assert (code, seconds < 20) == (expected, True)


def test_after_a_second_signal_nobody_waits_for_the_deaf(monkeypatch):
    monkeypatch.setattr(process_group, "_FAILURE_GRACE", 0.5)
    signals = []
    timer = threading.Timer(1.5, signals.extend, [[signal.SIGTERM, signal.SIGTERM]])
    timer.start()
    code, seconds = run(DEAF, signals=signals)
    assert (code, seconds < 20) == (137, True)


def test_no_process_is_left_behind_by_an_error(monkeypatch):
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
