import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from switch_jax.reports import figures


def test_labels_are_pushed_apart_and_keep_their_order():
    heights = [0.50, 0.98, 0.51, 0.99]
    placed = figures.spread(heights, gap=0.1)
    assert list(np.argsort(placed)) == list(np.argsort(heights))
    assert np.diff(np.sort(placed)).min() >= 0.1 - 1e-9
    assert placed.max() <= 1.0
    np.testing.assert_allclose(placed, [0.50, 0.90, 0.60, 1.00])


def test_labels_with_room_stay_where_they_are():
    np.testing.assert_allclose(figures.spread([0.9, 0.1], gap=0.1), [0.9, 0.1])


def test_means_of_neighbours_average_and_keep_the_rest():
    values = np.array([1.0, 3.0, 5.0, 7.0, 10.0])
    np.testing.assert_allclose(figures.means_of_neighbours(values, 3), [2.0, 6.0, 10.0])
    np.testing.assert_allclose(figures.means_of_neighbours(values, 5), values)
    pairs = np.stack([values, 2 * values], 1)
    np.testing.assert_allclose(figures.means_of_neighbours(pairs, 3)[:, 1], [4.0, 12.0, 20.0])


def test_points_are_joined_by_group_in_order_of_x():
    ax = Figure().add_subplot()
    points = [
        figures.Line(np.array([x]), np.array([y]), "", "red", dashed=dashed)
        for x, y, dashed in ((3.0, 1.0, True), (5.0, 9.0, False), (1.0, 2.0, True))
    ]
    figures.draw_points(ax, points, x_label="x", y_label="y", groups=("a", "b"))
    joined, single, *marks = ax.lines
    assert joined.get_xydata().tolist() == [[1, 2], [3, 1]] and joined.get_linestyle() == "--"
    assert single.get_xydata().tolist() == [[5, 9]]
    assert [line.get_markerfacecolor() for line in marks] == ["white", "red", "white"]


def test_a_band_lies_around_its_line_where_there_is_one():
    x, nan = np.array([1.0, 2.0, 3.0]), float("nan")
    band = np.array([0.0, 1.0, nan]), np.array([2.0, 3.0, nan])
    lines = [
        figures.Line(x, x, "a", "red", band=band),
        figures.Line(x, x, "b", "blue", band=(np.full(3, nan), np.full(3, nan))),
    ]
    ax = Figure().add_subplot()
    figures.draw_lines(ax, lines, x_label="x", y_label="y")
    (drawn,) = ax.collections
    corners = {tuple(corner) for corner in drawn.get_paths()[0].vertices}
    assert corners == {(1, 0), (2, 1), (2, 3), (1, 2)}


def test_a_single_step_stands_in_the_middle_of_the_axis():
    ax = Figure().add_subplot()
    lines = [figures.Line(np.array([120.0]), np.array([y]), "a", "red") for y in (1.0, 2.0)]
    figures.draw_lines(ax, lines, x_label="x", y_label="y")
    assert ax.get_xlim() == (0, 240)


def heat_map(step, load, **size):
    ax = Figure().add_subplot()
    figures.draw_load(ax, np.array(step), np.array(load), **size)
    return ax.images[0]


def test_the_heat_map_shows_load_relative_to_even_experts_upwards():
    image = heat_map([10, 20], [[0.5, 0.5], [0.25, 0.75]], columns=10, rows=10)
    np.testing.assert_allclose(image.get_array(), np.log2([[1, 0.5], [1, 1.5]]))
    assert image.get_extent() == [0, 20, -0.5, 1.5]


def test_an_expert_without_tokens_is_drawn_as_the_least():
    image = heat_map([10, 20], [[1.0, 0.0]] * 2, columns=10, rows=10)
    assert np.isfinite(image.get_array()).all() and image.get_array().min() < image.get_clim()[0]


def test_unevenly_spaced_steps_keep_their_place():
    # Lines at 10, 20, 80: of three columns to 80 (27 steps each) the last two belong to step 80.
    load = [[0.5, 0.5], [0.25, 0.75], [0.125, 0.875]]
    image = heat_map([10, 20, 80], load, columns=10, rows=10)
    np.testing.assert_allclose(image.get_array()[0], np.log2([0.5, 0.25, 0.25]))


def test_large_heat_maps_are_averaged_to_the_given_size():
    load = np.full((100, 64), 1 / 64)
    image = heat_map(range(1, 101), load, columns=20, rows=16)
    np.testing.assert_allclose(image.get_array(), np.zeros((16, 20)), atol=1e-12)


def test_shades_go_from_light_to_dark():
    tints = figures.shades(figures.COLOURS[0], 3)
    assert [sum(t) for t in tints] == sorted((sum(t) for t in tints), reverse=True)


@pytest.mark.parametrize(("charts", "rows"), [(3, [3]), (4, [2, 2]), (5, [3, 2]), (6, [3, 3])])
def test_a_row_of_the_picture_has_three_charts_and_four_charts_are_two_by_two(charts, rows):
    corners = []

    def draw(ax):
        corners.append((round(-ax.figure.bbox.y0), round(ax.figure.bbox.x0)))

    figures.picture([figures.Chart(f"Chart {i}", "", draw) for i in range(charts)], "title", [])
    assert corners == sorted(corners)  # as one reads
    heights = [y for y, _ in corners]
    assert [heights.count(y) for y in dict.fromkeys(heights)] == rows


@pytest.mark.parametrize("name", ["dense", "a_very_long_name_of_a_run_with_128_experts"])
def test_names_beside_charts_are_short(name):
    assert len(figures.short(name)) <= 16


def test_drawing_leaves_matplotlibs_settings_alone():
    before = dict(matplotlib.rcParams)
    figures.svg_data_url(figures.Chart("t", "c", lambda ax: ax.plot([0, 1])))
    assert dict(matplotlib.rcParams) == before
