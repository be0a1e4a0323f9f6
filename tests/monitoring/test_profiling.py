import jax
import pytest

from switch_jax.monitoring.profiling import Profiler


@pytest.fixture
def calls(monkeypatch):
    """What is asked of JAX's profiler, instead of a trace."""
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: calls.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    monkeypatch.setattr(jax, "block_until_ready", lambda result: calls.append(f"wait {result}"))
    return calls


def _steps(profiler, calls, first, last):
    """Goes through the steps, which note themselves; returns the messages."""
    messages = []
    for step in range(first, last + 1):
        profiler.before(step)
        calls.append(step)
        messages.append(profiler.after(step, f"r{step}"))
    return [m for m in messages if m]


def test_the_planned_steps_are_traced_and_only_the_last_is_waited_for(calls):
    messages = _steps(Profiler("runs/a/tensorboard", (3, 5)), calls, 1, 7)
    assert calls == [1, 2, "start", 3, 4, 5, "wait r5", "stop", 6, 7]
    assert len(messages) == 1 and "\n" not in messages[0]
    assert "steps 3 to 5" in messages[0]
    assert "tensorboard --logdir runs/a/tensorboard" in messages[0]


def test_a_run_that_starts_amid_the_planned_steps_traces_the_rest(calls):
    (message,) = _steps(Profiler("folder", (3, 5)), calls, 4, 6)
    assert calls == ["start", 4, 5, "wait r5", "stop", 6]
    assert "steps 4 to 5" in message


def test_a_request_traces_the_next_five_steps_each_time(calls):
    profiler = Profiler("folder", None)
    assert _steps(profiler, calls, 1, 2) == []
    profiler.request()
    (message,) = _steps(profiler, calls, 3, 8)
    assert calls == [1, 2, "start", 3, 4, 5, 6, 7, "wait r7", "stop", 8]
    assert "steps 3 to 7" in message
    calls.clear()
    profiler.request()
    assert _steps(profiler, calls, 9, 13)
    assert calls == ["start", 9, 10, 11, 12, 13, "wait r13", "stop"]


def test_close_stops_what_runs_and_nothing_else(calls):
    profiler = Profiler("folder", (2, 9))
    _steps(profiler, calls, 1, 1)
    profiler.close()
    assert calls == [1]
    _steps(profiler, calls, 2, 3)
    profiler.close()
    profiler.close()
    assert calls == [1, "start", 2, 3, "stop"]


def test_a_trace_that_cannot_be_written_is_reported_and_not_tried_again(calls, monkeypatch):
    def fail():
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(jax.profiler, "stop_trace", fail)
    profiler = Profiler("folder", (1, 1))
    (message,) = _steps(profiler, calls, 1, 1)
    assert "steps 1 to 1 is lost: No space left on device" in message
    calls.clear()
    profiler.request()
    assert _steps(profiler, calls, 2, 7) == []
    assert calls == [2, 3, 4, 5, 6, 7]
