import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from switch_jax.reports import drawing


def test_labels_are_pushed_apart_and_keep_their_order():
    heights = [0.50, 0.98, 0.51, 0.99]
    placed = drawing.spread(heights, gap=0.1)
    assert list(np.argsort(placed)) == list(np.argsort(heights))
    assert np.diff(np.sort(placed)).min() >= 0.1 - 1e-9
    assert placed.max() <= 1.0
    np.testing.assert_allclose(placed, [0.50, 0.90, 0.60, 1.00])


def test_labels_with_room_stay_where_they_are():
    np.testing.assert_allclose(drawing.spread([0.9, 0.1], gap=0.1), [0.9, 0.1])


def test_means_of_neighbours_average_and_keep_the_rest():
    values = np.array([1.0, 3.0, 5.0, 7.0, 10.0])
    np.testing.assert_allclose(drawing.means_of_neighbours(values, 3), [2.0, 6.0, 10.0])
    np.testing.assert_allclose(drawing.means_of_neighbours(values, 5), values)
    pairs = np.stack([values, 2 * values], 1)
    np.testing.assert_allclose(drawing.means_of_neighbours(pairs, 3)[:, 1], [4.0, 12.0, 20.0])


def test_a_band_lies_around_its_line_where_there_is_one():
    x, nan = np.array([1.0, 2.0, 3.0]), float("nan")
    band = np.array([0.0, 1.0, nan]), np.array([2.0, 3.0, nan])
    lines = [
        drawing.Line(x, x, "a", "red", band=band),
        drawing.Line(x, x, "b", "blue", band=(np.full(3, nan), np.full(3, nan))),
    ]
    ax = Figure().add_subplot()
    drawing.draw_lines(ax, lines, x_label="x", y_label="y")
    (drawn,) = ax.collections
    corners = {tuple(corner) for corner in drawn.get_paths()[0].vertices}
    assert corners == {(1, 0), (2, 1), (2, 3), (1, 2)}


def test_a_single_step_stands_in_the_middle_of_the_axis():
    ax = Figure().add_subplot()
    lines = [drawing.Line(np.array([120.0]), np.array([y]), "a", "red") for y in (1.0, 2.0)]
    drawing.draw_lines(ax, lines, x_label="x", y_label="y")
    assert ax.get_xlim() == (0, 240)


@pytest.mark.parametrize(("charts", "rows"), [(3, [3]), (4, [2, 2]), (5, [3, 2]), (6, [3, 3])])
def test_a_row_of_the_picture_has_three_charts_and_four_charts_are_two_by_two(charts, rows):
    corners = []

    def draw(ax):
        corners.append((round(-ax.figure.bbox.y0), round(ax.figure.bbox.x0)))

    drawing.picture([drawing.Chart(f"Chart {i}", "", draw) for i in range(charts)], "title", [])
    assert corners == sorted(corners)  # as one reads
    heights = [y for y, _ in corners]
    assert [heights.count(y) for y in dict.fromkeys(heights)] == rows


@pytest.mark.parametrize("name", ["dense", "a_very_long_name_of_a_run_with_128_experts"])
def test_names_beside_charts_are_short(name):
    assert len(drawing.short(name)) <= 16


def test_drawing_leaves_matplotlibs_settings_alone():
    before = dict(matplotlib.rcParams)
    drawing.svg_data_url(drawing.Chart("t", "c", lambda ax: ax.plot([0, 1])))
    assert dict(matplotlib.rcParams) == before
