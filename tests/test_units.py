import pytest

from switch_jax import units


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0.0 KiB"),
        (2**10, "1.0 KiB"),
        (50_000_000, "47.7 MiB"),
        (2**30 // 10, "102.4 MiB"),
        (2**30 // 10 + 1, "0.1 GiB"),
        (3 * 2**30, "3.0 GiB"),
        (1234.56 * 2**30, "1,234.6 GiB"),
    ],
)
def test_memory_size(size, text):
    assert units.memory_size(size) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.5"), (1234567, "1.23 M"), (1e12, "1 T"), (999, "999")]
)
def test_count(value, text):
    assert units.count(value) == text


@pytest.mark.parametrize(("number", "text"), [(1, "1 chip"), (0, "0 chips"), (1024, "1,024 chips")])
def test_counted(number, text):
    assert units.counted(number, "chip") == text


@pytest.mark.parametrize(("seconds", "text"), [(109.0, "109 s"), (5400.0, "90 min")])
def test_duration(seconds, text):
    assert units.duration(seconds) == text


def test_aligned():
    assert units.aligned([["a", "1"], ["bcd", "23"]], right=[1]) == ["a     1", "bcd  23"]
