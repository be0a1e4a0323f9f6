import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from switch_jax.drawing import figures


def test_labels_are_pushed_apart_and_keep_their_order():
    heights = [0.50, 0.98, 0.51, 0.99]
    placed = figures.spread(heights, gap=0.1)
    np.testing.assert_allclose(placed, [0.50, 0.90, 0.60, 1.00])
    np.testing.assert_allclose(figures.spread([0.9, 0.1], gap=0.1), [0.9, 0.1])  # there is room


def test_means_of_neighbours_average_and_keep_the_rest():
    values = np.array([1.0, 3.0, 5.0, 7.0, 10.0])
    np.testing.assert_allclose(figures.means_of_neighbours(values, 3), [2.0, 6.0, 10.0])
    np.testing.assert_allclose(figures.means_of_neighbours(values, 5), values)
    pairs = np.stack([values, 2 * values], 1)
    np.testing.assert_allclose(figures.means_of_neighbours(pairs, 3)[:, 1], [4.0, 12.0, 20.0])


def test_ticks_are_round_with_commas():
    ax = Figure().add_subplot()
    ax.set(xlim=(0, 4000), ylim=(-2.5, 0))
    figures.plain_ticks(ax.xaxis, most=5)
    figures.plain_ticks(ax.yaxis, most=6)
    ax.figure.draw_without_rendering()
    assert [tick.get_text() for tick in ax.get_xticklabels()][:3] == ["0", "1,000", "2,000"]
    assert [tick.get_text() for tick in ax.get_yticklabels()][:2] == ["−2.5", "−2.0"]


def test_lines_end_in_their_labels():
    nan = float("nan")
    steps = np.arange(3.0)
    lines = [
        figures.Line(steps, np.array([0.0, 1.0, 2.0]), "rising", "red"),
        figures.Line(steps, np.array([2.0, 1.0, nan]), "ended", "blue", dashed=True),
        figures.Line(steps, np.array([nan] * 3), "nothing", "green"),
    ]
    ax = Figure().add_subplot()
    figures.draw_lines(ax, lines, x_label="step", y_label="y", y_limits=(0, 2))
    texts = {text.get_text(): (text.get_color(), text.xy[1]) for text in ax.texts}
    assert texts == {"rising": ("red", 1.0), "ended": ("blue", 0.5)}
    assert [line.get_linestyle() for line in ax.lines] == ["-", "--", "-"]


@pytest.mark.parametrize("name", ["dense", "a_very_long_name_of_a_run_with_128_experts"])
def test_names_beside_charts_are_short(name):
    assert len(figures.short(name)) <= 16


def test_drawing_leaves_matplotlibs_settings_alone():
    before = dict(matplotlib.rcParams)
    figures.svg_data_url(figures.Chart("t", "c", lambda ax: ax.plot([0, 1])))
    assert dict(matplotlib.rcParams) == before
