import contextlib
import threading
import time

from switch_jax.monitoring import watchdog as module
from switch_jax.monitoring.watchdog import Watchdog
from tests.waiting import wait_until


def test_each_silence_is_told_once_with_the_stacks_of_all_threads(capfd):
    go_on = threading.Event()

    def a_thread_that_hangs():
        go_on.wait()

    thread = threading.Thread(target=a_thread_that_hangs)
    thread.start()
    told = []

    def all_is_told():
        told[-1] += capfd.readouterr().err
        return "in a_thread_that_hangs" in told[-1] and "in test_each_silence_is" in told[-1]

    with contextlib.closing(Watchdog(0.05)) as watchdog:
        for _ in range(2):
            told.append("")
            watchdog.alive()
            wait_until(all_is_told)
            time.sleep(0.2)  # time enough for more
            told[-1] += capfd.readouterr().err
    go_on.set()
    thread.join()
    assert [text.count("Timeout") for text in told] == [1, 1]


class Alarm:
    """In the place of `faulthandler`, by a time that the test lets pass."""

    def __init__(self):
        self.time, self._due, self.rung = 0.0, None, 0

    def dump_traceback_later(self, seconds, file):
        self._due = self.time + seconds

    def cancel_dump_traceback_later(self):
        self._due = None

    def let_pass(self, seconds):
        self.time += seconds
        if self._due is not None and self.time >= self._due:
            self.rung, self._due = self.rung + 1, None


def test_it_is_quiet_before_the_first_step_while_steps_come_in_time_and_once_closed(monkeypatch):
    alarm = Alarm()
    monkeypatch.setattr(module, "faulthandler", alarm)
    watchdog = Watchdog(20.0)
    alarm.let_pass(1000.0)  # compiling may take longer than any step
    for _ in range(3):
        watchdog.alive()
        alarm.let_pass(19.0)
    assert alarm.rung == 0
    alarm.let_pass(1.0)
    assert alarm.rung == 1
    watchdog.alive()
    watchdog.close()
    alarm.let_pass(1000.0)
    assert alarm.rung == 1
