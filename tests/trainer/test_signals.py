import contextlib
import os
import pty
import queue
import signal
import threading

import jax
import numpy as np
import pytest

from switch_jax.config import MeshConfig
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.trainer import signals as signals_module
from switch_jax.trainer.signals import INTERRUPTED, NONE, PREEMPTED, Stopped, StopSignals
from switch_jax.utils.interrupts import InterruptHandler
from tests.waiting import HANGS

MESH = make_mesh(MeshConfig(2, 2, 1))


def _send(number):
    os.kill(os.getpid(), number)


@pytest.fixture
def signals():
    """The signals of a run; `asked` has a word for each trace that is asked for."""
    asked = []
    with StopSignals(MESH, lambda: asked.append("trace")) as signals:
        signals.asked = asked
        yield signals


def _assert_told(signals, number, no_batch=False):
    told = signals.arrays(no_batch=no_batch)
    np.testing.assert_array_equal(told, [[number] * 4, [no_batch] * 4])


def test_signals_become_what_the_step_is_told(signals):
    _assert_told(signals, NONE)
    assert signals.arrays() is signals.arrays()  # nothing is sent while nothing happens
    _send(signal.SIGUSR1)
    assert signals.asked == ["trace"] and not signals.is_wanted()
    _assert_told(signals, NONE)
    _send(signal.SIGTERM)
    assert signals.is_wanted()
    _assert_told(signals, PREEMPTED)
    _assert_told(signals, PREEMPTED, no_batch=True)  # of a host without data


def test_a_second_interrupt_ends_the_process_at_once(signals, capfd):
    _send(signal.SIGINT)
    _assert_told(signals, INTERRUPTED)
    assert "stopping after this step" in capfd.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        _send(signal.SIGINT)


def test_an_interrupt_saves_though_nobody_reads_what_it_says(signals):
    with _in_place_of(2, _pipe_that_nobody_reads()):
        _send(signal.SIGINT)  # as of `2>&1 | tee log`, where it has ended tee
    _assert_told(signals, INTERRUPTED)


@contextlib.contextmanager
def _in_place_of(number, other):
    """Within, a file descriptor of this process is what `other` was, which is closed."""
    kept = os.dup(number)
    os.dup2(other, number)
    os.close(other)
    try:
        yield
    finally:
        os.dup2(kept, number)
        os.close(kept)


def _pipe_that_nobody_reads():
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.fixture
def handler():
    """handler(number, its handler): sets it until the end of the test."""
    with contextlib.ExitStack() as before:
        before.callback(signal.signal, signal.SIGALRM, signal.getsignal(signal.SIGALRM))
        before.callback(signal.alarm, 0)
        yield lambda number, own: before.callback(signal.signal, number, signal.signal(number, own))


def test_a_terminal_that_is_closed_ends_the_run_with_its_state_saved(handler):
    handler(signal.SIGHUP, signal.SIG_DFL)  # nohup, and some CI, ignore it
    with StopSignals(MESH, lambda: None) as signals:
        terminal, ours = pty.openpty()
        with _in_place_of(1, ours):
            os.close(terminal)
            with pytest.raises(OSError, match="Input/output error"):
                os.write(1, b"x")
            _send(signal.SIGHUP)
            os.write(1, b"x")  # to nobody
        _assert_told(signals, PREEMPTED)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_a_hangup_that_was_ignored_as_under_nohup_stays_ignored(handler):
    handler(signal.SIGHUP, signal.SIG_IGN)
    with StopSignals(MESH, lambda: None) as signals:
        _send(signal.SIGHUP)
        assert not signals.is_wanted()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_signal_to_another_host_is_found_when_it_is_asked_for(signals, monkeypatch):
    words = []
    monkeypatch.setattr(signals_module, "published", lambda name: words)
    assert not signals.is_wanted()
    words += [str(INTERRUPTED), str(PREEMPTED)]
    _assert_told(signals, NONE)
    assert signals.is_wanted()
    _assert_told(signals, PREEMPTED, no_batch=True)


def test_other_hosts_hear_of_a_signal_though_the_main_thread_is_not_in_python(monkeypatch):
    heard = queue.Queue()
    monkeypatch.setattr(signals_module, "publish", lambda *word: heard.put(word))
    signals = StopSignals(MESH, lambda: None)
    with monkeypatch.context() as many:
        many.setattr(jax, "process_count", lambda: 2)
        signals.__enter__()
    _send(signal.SIGUSR1)
    _send(signal.SIGTERM)
    assert heard.get(timeout=HANGS) == ("signal", str(PREEMPTED))
    signals.__exit__()
    assert signal.set_wakeup_fd(-1) == -1
    assert heard.empty()


def test_an_interrupt_that_got_lost_comes_before_the_first_step(handler, monkeypatch):
    handler(signal.SIGINT, InterruptHandler())
    with contextlib.suppress(KeyboardInterrupt):  # as a library may do
        _send(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), StopSignals(MESH, lambda: None):
        pass
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    for error in (os.dup(2), _pipe_that_nobody_reads()):
        with contextlib.suppress(KeyboardInterrupt), _in_place_of(2, error):
            _send(signal.SIGINT)
    assert ended == [130, 130], "a second one ends the process at once"


def test_after_a_second_interrupt_what_is_closed_has_five_seconds(handler, monkeypatch, capfd):
    handler(signal.SIGINT, InterruptHandler())
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with pytest.raises(KeyboardInterrupt), StopSignals(MESH, lambda: None):
        _send(signal.SIGINT)
        _send(signal.SIGINT)
    assert ended == [] and 0 < signal.alarm(0) <= 5
    _send(signal.SIGALRM)  # as at their end
    assert ended == [130]
    with contextlib.suppress(KeyboardInterrupt):
        _send(signal.SIGINT)
    assert ended == [130, 130], "the third ends the process at once"
    assert capfd.readouterr().err.endswith("\nstopped\nstopped\n")


def test_in_a_thread_there_are_no_handlers_and_no_error():
    arrays = []

    def work():
        with StopSignals(MESH, lambda: None) as signals:
            arrays.append(signals.arrays())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    np.testing.assert_array_equal(arrays[0], [[NONE] * 4, [0] * 4])


@pytest.mark.parametrize(("number", "code"), [(PREEMPTED, 75), (INTERRUPTED, 130)])
def test_exit_codes(number, code):
    stopped = Stopped(number, 12)
    assert stopped.exit_code == code
    assert "no step was done; the same command goes on" in str(Stopped(number, 0))
    assert "the state of step 12 is saved; the same command goes on" in str(stopped)
