import os
import signal
import threading

import numpy as np
import pytest

from switch_jax.partitioning.mesh import MeshConfig, make_mesh
from switch_jax.training.stopping import INTERRUPTED, NONE, PREEMPTED, Stopped, StopSignals

MESH = make_mesh(MeshConfig(2, 2, 1))


def _send(number):
    os.kill(os.getpid(), number)


def test_signals_become_what_the_step_is_told():
    with StopSignals(MESH, lambda: None) as signals:
        np.testing.assert_array_equal(signals.array(), [NONE] * 4)
        assert signals.array() is signals.array()  # nothing is sent while nothing happens
        _send(signal.SIGTERM)
        np.testing.assert_array_equal(signals.array(), [PREEMPTED] * 4)


def test_a_second_interrupt_ends_the_process_at_once(capfd):
    with StopSignals(MESH, lambda: None) as signals:
        _send(signal.SIGINT)
        np.testing.assert_array_equal(signals.array(), [INTERRUPTED] * 4)
        assert "stopping after this step" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            _send(signal.SIGINT)


def test_sigusr1_asks_for_a_trace():
    asked = []
    with StopSignals(MESH, lambda: asked.append(True)) as signals:
        _send(signal.SIGUSR1)
        assert asked == [True]
        np.testing.assert_array_equal(signals.array(), [NONE] * 4)


def test_the_handlers_of_before_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals(MESH, lambda: None):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_in_a_thread_there_are_no_handlers_and_no_error():
    arrays = []

    def work():
        with StopSignals(MESH, lambda: None) as signals:
            arrays.append(signals.array())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    np.testing.assert_array_equal(arrays[0], [NONE] * 4)


@pytest.mark.parametrize(("number", "code"), [(PREEMPTED, 75), (INTERRUPTED, 130)])
def test_exit_codes(number, code):
    stopped = Stopped(number, 12)
    assert stopped.exit_code == code
    assert "the state of step 12 is saved; the same command goes on" in str(stopped)
