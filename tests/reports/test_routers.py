import dataclasses

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from switch_jax.drawing.figures import COLOURS, svg_data_url
from switch_jax.reports import routers
from tests.reports.by_hand import drawn, run, series


def heat_map(step, load):
    ax = Figure().add_subplot()
    routers.draw_load(ax, np.array(step), np.array(load))
    return ax.collections[0]


def test_the_heat_map_shows_load_relative_to_even_experts_upwards():
    mesh = heat_map([10, 20], [[0.5, 0.5], [0.25, 0.75]])
    np.testing.assert_allclose(mesh.get_array(), np.log2([[1, 0.5], [1, 1.5]]))
    assert mesh.get_clim() == (-2, 2)
    corners = mesh.get_coordinates()
    assert corners[0, 0].tolist() == [5, -0.5] and corners[-1, -1].tolist() == [25, 1.5]


def test_an_expert_without_tokens_is_drawn_as_the_least():
    mesh = heat_map([10, 20], [[1.0, 0.0]] * 2)
    assert np.isfinite(mesh.get_array()).all() and mesh.get_array().min() < mesh.get_clim()[0]


def test_unevenly_spaced_steps_keep_their_place():
    mesh = heat_map([10, 20, 80], [[0.5, 0.5], [0.25, 0.75], [0.125, 0.875]])
    np.testing.assert_allclose(mesh.get_coordinates()[0, :, 0], [5, 15, 50, 110])
    np.testing.assert_allclose(mesh.get_array()[0], np.log2([1.0, 0.5, 0.25]))


def test_large_heat_maps_are_averaged():
    load = np.full((400, 512), 1 / 512)
    mesh = heat_map(range(1, 401), load)
    np.testing.assert_allclose(mesh.get_array(), np.zeros((128, 134)), atol=1e-12)
    chart = routers.load("encoder", "layer 1", series([(i, 0.0) for i in range(1, 401)], load=load))
    assert chart.caption.endswith(" A row is the mean of 4 neighbouring experts.")
    assert len(svg_data_url(chart)) < 100_000  # not a path for each cell


def test_a_record_alone_can_be_drawn():
    assert heat_map([10], [[0.5, 0.5]]).get_array().shape == (2, 1)


def test_the_caption_of_a_load_names_the_extremes():
    router = series([(1, 0.0), (2, 0.0)], load=[[0.25] * 4, [0.5, 0.125, 0.125, 0.25]])
    chart = routers.load("decoder", "layer 3", router)
    assert chart.title == "Decoder layer 3 (Switch)"
    assert "expert 0 has the most (2.00× its share), expert 1 the least (0.50×)." in chart.caption


def router_charts(**facts):
    several = {"several_experts": [0.25]} if facts else {}
    layers = {
        name: series(
            [(10, 0.0)], load=[[0.5] * 2], dropped=[x], entropy=[x], router_logit_max=[9 + x],
            **several,
        )
        for name, x in (("layer 1", 0.1), ("layer 3", 0.2))
    }  # fmt: skip
    sparse = dataclasses.replace(run("s", 2, [(10, -4.0)], **facts), routers={"encoder": layers})
    return routers.line_charts(sparse, "encoder", COLOURS[0])


def test_dropped_tokens_and_entropy_have_a_line_for_each_layer():
    dropped, entropy, _ = router_charts()
    assert "found their expert full. At the last step 20.00 % at most." in dropped.caption
    ax = drawn(dropped)
    assert [text.get_text() for text in ax.texts] == ["layer 1", "layer 3"]
    assert [line.get_ydata().tolist() for line in ax.lines] == [[10.0], [20.0]]
    light, strong = (line.get_color() for line in ax.lines)
    assert strong == pytest.approx(to_rgb(COLOURS[0])), "the run's own colour"
    assert sum(light) > sum(strong), "stronger colour = later layer"
    # The dotted line of no preference is at ln 2.
    assert drawn(entropy).lines[-1].get_ydata()[0] == np.log(2)


def test_the_axis_of_the_largest_logit_begins_where_the_lines_are():
    *_, largest = router_charts()
    assert largest.title == "Largest router logit, encoder"
    assert "At the last step 9.200 at most." in largest.caption
    ax = drawn(largest)
    assert ax.get_ylabel() == "largest logit"
    assert [line.get_ydata().tolist() for line in ax.lines] == [[9.1], [9.2]]
    assert 9 < ax.get_ylim()[0] < 9.1 and 9.2 < ax.get_ylim()[1] < 10


def test_where_experts_choose_tokens_may_have_several():
    dropped, *_, several = router_charts(encoder_router_type="experts_choose")
    assert "Share of the tokens that no expert took." in dropped.caption
    assert drawn(several).lines[0].get_ydata().tolist() == [25.0]


def test_a_layer_alone_has_the_colour_of_its_run():
    (shade,) = routers.shades(COLOURS[1], 1)
    assert shade == pytest.approx(to_rgb(COLOURS[1]))
