import pytest

from switch_jax.utils import units


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (units.memory_size(0), "0.0 KiB"),
        (units.memory_size(50_000_000), "47.7 MiB"),
        (units.memory_size(2**30 // 10), "102.4 MiB"),
        (units.memory_size(2**30 // 10 + 1), "0.1 GiB"),
        (units.memory_size(1234.56 * 2**30), "1,234.6 GiB"),
        (units.count(0.5), "0.5"),
        (units.count(999), "999"),
        (units.count(1234567), "1.23 M"),
        (units.count(1e12), "1 T"),
        (units.counted(1, "chip"), "1 chip"),
        (units.counted(0, "chip"), "0 chips"),
        (units.counted(1024, "chip"), "1,024 chips"),
        (units.duration(109.0), "109 s"),
        (units.duration(5400.0), "90 min"),
    ],
)
def test_numbers_as_text(written, text):
    assert written == text


def test_aligned():
    assert units.aligned([["a", "1"], ["bcd", "23"]], right=[1]) == ["a     1", "bcd  23"]
