"""What part of the curves a chart of quality shows."""

import numpy as np
import pytest

from switch_jax.reports.drawing import Line
from switch_jax.reports.pictures.curves import focus

STEPS = np.array([0.0, 25.0, 50.0, 100.0])


@pytest.mark.parametrize(
    ("values", "low", "high", "cut"),
    [
        ([-8.0, -4.0, -3.0, -2.0], -4.0, -2.0, True),  # without the steep start
        ([-2.5, -2.75, -3.0, -2.875], -3.0, -2.5, False),  # a curve that falls stays in it
    ],
)
def test_the_first_quarter_of_the_steps_does_not_set_the_limits(values, low, high, cut):
    (bottom, top), is_cut = focus([Line(STEPS, np.array(values), "a", "red")])
    assert bottom == pytest.approx(low - 0.05 * (high - low))
    assert top == pytest.approx(high + 0.08 * (high - low))
    assert is_cut == cut


def test_a_run_that_ends_before_the_limits_begin_does_not_set_them():
    long = Line(STEPS, np.array([-8.0, -4.0, -3.0, -2.0]), "a", "red")
    just_begun = Line(np.array([0.0]), np.array([-8.0]), "b", "blue")
    limits, is_cut = focus([long, just_begun])
    assert (limits, is_cut) == focus([long])
    assert focus([just_begun, just_begun]) == ((None, None), False)
