import contextlib
import threading
import time

from switch_jax.monitoring.watchdog import Watchdog


def test_each_silence_is_told_once_with_the_stacks_of_all_threads(capfd):
    go_on = threading.Event()

    def a_thread_that_hangs():
        go_on.wait()

    thread = threading.Thread(target=a_thread_that_hangs)
    thread.start()
    told = []
    with contextlib.closing(Watchdog(0.05)) as watchdog:
        for _ in range(2):
            watchdog.alive()
            time.sleep(0.3)
            told.append(capfd.readouterr().err)
    go_on.set()
    thread.join()
    for text in told:
        assert text.count("Timeout") == 1
        assert "in a_thread_that_hangs" in text and "in test_each_silence_is" in text


def test_it_is_quiet_before_the_first_step_while_steps_come_in_time_and_once_closed(capfd):
    watchdog = Watchdog(0.2)
    time.sleep(0.3)  # compiling may take longer than any step
    for _ in range(28):
        watchdog.alive()
        time.sleep(0.01)
    watchdog.close()
    time.sleep(0.3)
    assert capfd.readouterr().err == ""
