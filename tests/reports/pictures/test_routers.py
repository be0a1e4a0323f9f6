import numpy as np
from matplotlib.figure import Figure

from switch_jax.reports.drawing import COLOURS
from switch_jax.reports.pictures.routers import draw_load, shades


def heat_map(step, load, **size):
    ax = Figure().add_subplot()
    draw_load(ax, np.array(step), np.array(load), **size)
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
    tints = shades(COLOURS[0], 3)
    assert [sum(t) for t in tints] == sorted((sum(t) for t in tints), reverse=True)
