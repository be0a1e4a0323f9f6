import pytest

from switch_jax.monitoring.goodput import Goodput, InputBound
from switch_jax.run_folder import TIME_CATEGORIES


class Clock:
    """Shows what it was last set to."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_every_second_counts_for_the_innermost_block_and_once(clock):
    goodput = Goodput(clock=clock)
    assert goodput.fraction() == 0
    clock.now += 1  # idle
    with goodput.spend("eval"):
        clock.now += 2
        with goodput.spend("data"):
            clock.now += 4
        clock.now += 8
        assert goodput.seconds()["eval"] == 10, "of the open block so far"
    clock.now += 16  # idle
    with goodput.spend("step"):
        clock.now += 32
    assert goodput.seconds() == {
        "step": 32, "data": 4, "checkpoint": 0, "eval": 10, "compile": 0, "idle": 17
    }  # fmt: skip
    assert goodput.fraction() == 32 / 63


def test_a_block_that_fails_counts_and_ends(clock):
    goodput = Goodput(clock=clock)
    with pytest.raises(KeyError), goodput.spend("checkpoint"):
        clock.now += 3
        raise KeyError
    clock.now += 5
    assert goodput.seconds()["checkpoint"] == 3
    assert goodput.seconds()["idle"] == 5


def test_a_run_goes_on_with_the_seconds_of_its_earlier_starts(clock):
    earlier = {"step": 10.0, "idle": 1.0}
    goodput = Goodput(earlier, clock)
    with goodput.spend("step"):
        clock.now += 5
    assert goodput.seconds() == {**dict.fromkeys(TIME_CATEGORIES, 0.0), "step": 15.0, "idle": 1.0}
    assert earlier == {"step": 10.0, "idle": 1.0}


def test_waiting_is_measured_over_ten_minutes_and_not_over_a_busy_one():
    bound = InputBound()
    for minute in range(14400):  # ten days; of each hour one minute is busy
        assert bound.warning(data=30.0 if minute % 60 == 19 else 0.0, total=60.0) is None
    said = [bound.warning(data=6.6, total=60.0) for _ in range(25)]
    (first, second) = [warning for warning in said if warning]
    assert (said.index(first), said[19]) == (9, second), "once in ten minutes"
    assert "warning: 11% of the time went into waiting for data" in first and "\n" not in first


def test_a_tenth_of_waiting_is_no_reason_to_warn():
    assert InputBound().warning(data=100.0, total=1000.0) is None
