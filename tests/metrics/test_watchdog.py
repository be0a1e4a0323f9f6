import contextlib
import threading
import time

import pytest

from switch_jax.metrics.watchdog import Watchdog


@pytest.fixture
def watch():
    """watch(seconds) is a watchdog that the test closes."""
    with contextlib.ExitStack() as closing:

        def watch(seconds):
            return closing.enter_context(contextlib.closing(Watchdog(seconds)))

        yield watch


def test_each_silence_is_told_once_with_the_stacks_of_all_threads(watch, capfd):
    go_on = threading.Event()

    def a_thread_that_hangs():
        go_on.wait()

    thread = threading.Thread(target=a_thread_that_hangs)
    thread.start()
    watchdog, told = watch(0.05), []
    for _ in range(2):
        watchdog.alive()
        time.sleep(0.3)
        told.append(capfd.readouterr().err)
    go_on.set()
    thread.join()
    for text in told:
        assert text.count("Timeout") == 1
        assert "in a_thread_that_hangs" in text and "in test_each_silence_is" in text


def test_it_is_quiet_before_the_first_step_while_steps_come_in_time_and_once_closed(watch, capfd):
    watchdog = watch(0.2)
    time.sleep(0.3)  # compiling may take longer than any step
    for _ in range(28):
        watchdog.alive()
        time.sleep(0.01)
    watchdog.close()
    time.sleep(0.3)
    assert capfd.readouterr().err == ""
