import pytest

from switch_jax.metrics.goodput import Goodput, InputBound
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
    clock.now += 1  # idle
    with goodput.spend("eval"):
        clock.now += 2
        with goodput.spend("data"):
            clock.now += 4
        clock.now += 8
    clock.now += 16  # idle
    with goodput.spend("step"):
        clock.now += 32
    assert goodput.seconds() == {
        "step": 32,
        "data": 4,
        "checkpoint": 0,
        "eval": 10,
        "compile": 0,
        "idle": 17,
    }
    assert goodput.fraction() == 32 / 63


def test_seconds_inside_a_block_hold_what_it_took_so_far(clock):
    goodput = Goodput(clock=clock)
    with goodput.spend("compile"):
        clock.now += 3
        assert goodput.seconds()["compile"] == 3
        clock.now += 2
    assert goodput.seconds()["compile"] == 5


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


def test_no_time_has_no_good_part(clock):
    assert Goodput(clock=clock).fraction() == 0


def test_real_time_adds_up():
    goodput = Goodput()
    with goodput.spend("step"):
        sum(range(100_000))
    seconds = goodput.seconds()
    assert 0 < seconds["step"] < 10
    assert 0 < goodput.fraction() < 1


def test_a_tenth_of_waiting_is_no_reason_to_warn(clock):
    bound = InputBound(8, clock)
    assert bound.warning(data=2.0, total=20.0) is None
    assert bound.warning(data=0.0, total=0.0) is None


def test_the_warning_says_how_much_and_what_to_do(clock):
    warning = InputBound(8, clock).warning(data=5.0, total=20.0)
    assert "25%" in warning and "start a new run with fewer DATA_STREAMS" in warning
    assert "USE_CACHED_TASKS" in warning and "\n" not in warning


def test_a_single_stream_cannot_be_fewer(clock):
    said = "warning: 25% of the time went into waiting for data; use more host cores, USE_CACHED"
    assert InputBound(1, clock).warning(data=5.0, total=20.0).startswith(said)


def test_the_warning_comes_once_in_ten_minutes(clock):
    bound = InputBound(8, clock)
    assert bound.warning(5.0, 20.0)
    clock.now += 599
    assert bound.warning(5.0, 20.0) is None
    clock.now += 1
    assert bound.warning(5.0, 20.0)
    assert bound.warning(5.0, 20.0) is None
