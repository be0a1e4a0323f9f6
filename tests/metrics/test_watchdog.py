import re
import tempfile
import threading
import time
import timeit

from switch_jax.metrics.watchdog import Watchdog

REPORT = re.compile(r"^no step for (\S+) s \(last: (.+)\); stacks of all threads follow$", re.M)


def _reports(file):
    return REPORT.findall(file.read_text()) if file.exists() else []


def _wait_for(count, file, seconds=10.0):
    """Returns as soon as the file holds so many reports; that long only where it fails."""
    end = time.monotonic() + seconds
    while len(_reports(file)) < count and time.monotonic() < end:
        time.sleep(0.005)
    assert len(_reports(file)) >= count


def test_a_silence_is_reported_once_with_the_stacks_of_all_threads(tmp_path, capfd):
    file = tmp_path / "hang.txt"
    go_on = threading.Event()

    def a_thread_that_hangs():
        go_on.wait()

    thread = threading.Thread(target=a_thread_that_hangs)
    thread.start()
    with Watchdog(0.05, file) as watchdog:
        watchdog.alive("step 123")
        _wait_for(1, file)
        time.sleep(0.2)
        watchdog.alive("step 124")
        _wait_for(2, file)
    go_on.set()
    thread.join()
    text = file.read_text()
    assert _reports(file) == [("0.05", "step 123"), ("0.05", "step 124")]
    assert "in a_thread_that_hangs" in text and "in _wait_for" in text
    written = capfd.readouterr().err
    assert REPORT.search(written) and "in a_thread_that_hangs" in written


def test_the_main_thread_comes_first_however_many_there_are(tmp_path):
    file = tmp_path / "hang.txt"
    go_on = threading.Event()
    threads = [threading.Thread(target=go_on.wait) for _ in range(150)]
    for thread in threads:
        thread.start()
    with Watchdog(0.05, file) as watchdog:
        watchdog.alive("step 1")
        _wait_for(1, file)
    go_on.set()
    for thread in threads:
        thread.join()
    first, *others = file.read_text().split("\nThread ")
    assert "Main thread" in first and "in _wait_for" in first
    assert len(others) >= 99


def test_without_room_for_temporary_files_the_main_thread_is_shown(tmp_path, monkeypatch):
    def refuse():
        raise OSError("no room")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with Watchdog(0.05, tmp_path / "hang.txt") as watchdog:
        watchdog.alive("step 1")
        _wait_for(1, tmp_path / "hang.txt")
    assert "in _wait_for" in (tmp_path / "hang.txt").read_text()


def test_nothing_is_reported_before_the_first_step(tmp_path):
    """Compiling may take longer than any step."""
    file = tmp_path / "hang.txt"
    with Watchdog(0.01, file):
        time.sleep(0.2)
    assert not file.exists()


def test_steps_that_come_in_time_keep_it_quiet_for_longer_than_its_period(tmp_path):
    file = tmp_path / "hang.txt"
    with Watchdog(0.2, file) as watchdog:
        for step in range(28):
            watchdog.alive(f"step {step}")
            time.sleep(0.01)
    assert not file.exists()


def test_close_ends_the_thread_at_once(tmp_path):
    watchdog = Watchdog(3600.0, tmp_path / "hang.txt")
    assert "watchdog" in [t.name for t in threading.enumerate()]
    start = time.monotonic()
    watchdog.close()
    assert time.monotonic() - start < 0.9
    assert "watchdog" not in [t.name for t in threading.enumerate()]


def test_a_file_that_cannot_be_written_silences_nothing(tmp_path, capfd):
    with Watchdog(0.02, tmp_path / "missing" / "hang.txt") as watchdog:
        written, end = "", time.monotonic() + 10
        for step in (1, 2):
            watchdog.alive(f"step {step}")
            while len(REPORT.findall(written)) < step and time.monotonic() < end:
                time.sleep(0.005)
                written += capfd.readouterr().err
    assert REPORT.findall(written) == [("0.02", "step 1"), ("0.02", "step 2")]


def test_a_step_costs_microseconds(tmp_path):
    with Watchdog(3600.0, tmp_path / "hang.txt") as watchdog:
        best = min(timeit.repeat(lambda: watchdog.alive("step 1"), number=1000, repeat=5))
    assert best / 1000 < 20e-6
