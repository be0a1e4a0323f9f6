import contextlib
import os
import threading
import time

from switch_jax.monitoring import watchdog as module
from switch_jax.monitoring.watchdog import Watchdog
from tests.waiting import wait_until


@contextlib.contextmanager
def stderr_in(path):
    """Descriptor 2 writes to this file. `capfd` loses what another thread writes while it reads."""
    saved = os.dup(2)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def test_each_silence_is_told_once_with_the_stacks_of_all_threads(tmp_path):
    go_on, written = threading.Event(), tmp_path / "stderr"

    def a_thread_that_hangs():
        go_on.wait()

    def are_told(silences):
        text = written.read_text()
        return all(
            text.count(f"in {name}") == silences for name in ("a_thread_that_", "test_each_")
        )

    thread = threading.Thread(target=a_thread_that_hangs)
    thread.start()
    with stderr_in(written), contextlib.closing(Watchdog(0.05)) as watchdog:
        for silences in (1, 2):
            watchdog.alive()
            wait_until(lambda silences=silences: are_told(silences))
            time.sleep(0.2)  # time enough for more
            assert written.read_text().count("Timeout") == silences
    go_on.set()
    thread.join()


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
