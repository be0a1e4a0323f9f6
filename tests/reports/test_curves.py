import dataclasses

import numpy as np
import pytest

from switch_jax.drawing.figures import COLOURS, GREY
from switch_jax.reports import curves
from switch_jax.reports.curves import STEPS, both_axes
from tests.reports.by_hand import drawn, findings, run, series

DENSE = run("dense", 0, [(0, -8.0), (100, -6.0), (300, -4.0)])
SPARSE = run("sparse", 8, [(0, -8.0), (100, -5.0), (200, -4.5), (300, -3.0)])


def line(ax, colour):
    (found,) = [line for line in ax.lines if line.get_color() == colour]
    return found.get_xydata()


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_a_line_for_each_run_dashed_where_dense():
    chart = curves.training(findings(SPARSE, DENSE), STEPS)
    ax = drawn(chart)
    np.testing.assert_array_equal(line(ax, COLOURS[0]), [[0, -8], [100, -6], [300, -4]])
    np.testing.assert_array_equal(line(ax, COLOURS[1])[-1], [300, -3])
    assert [one.get_linestyle() for one in ax.lines] == ["-", "--"]
    assert texts(ax) == ["sparse", "dense"] and chart.caption.endswith(" Dashed = dense.")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "neg. log perplexity [nats]")


def test_time_is_in_one_unit_that_suits_the_longest_run():
    slow = dataclasses.replace(SPARSE, train=series([(300, -4.0)], seconds_per_step=60))
    found = findings(slow, DENSE)
    ax = drawn(curves.training(found, both_axes(found)[1]))
    assert ax.get_xlabel() == "training time [h]"
    np.testing.assert_allclose(line(ax, COLOURS[0])[:, 0], [0, 100 / 3600, 300 / 3600])


@pytest.mark.parametrize(
    ("values", "low", "high", "cut"),
    [
        ([-8.0, -4.0, -3.0, -2.0], -4.0, -2.0, True),  # without the steep start
        ([-2.5, -2.75, -3.0, -2.875], -3.0, -2.5, False),  # a curve that falls stays in it
    ],
)
def test_the_first_quarter_of_the_steps_does_not_set_the_limits(values, low, high, cut):
    points = list(zip((0, 25, 50, 100), values, strict=True))
    chart = curves.training(findings(run("a", 0, points)), STEPS)
    limits = low - 0.05 * (high - low), high + 0.08 * (high - low)
    assert drawn(chart).get_ylim() == pytest.approx(limits)
    assert (" The steep first part lies below the chart." in chart.caption) == cut


def test_the_last_value_of_a_short_run_lies_within_the_axis():
    long = run("long", 0, [(0, -8.0), (250, -4.0), (500, -3.5), (1500, -3.25), (2500, -3.0)])
    short = run("short", 8, [(0, -8.0), (100, -7.0), (200, -6.0), (300, -5.0)])
    found = findings(long, short)
    for axis in both_axes(found):
        for chart in (curves.held_out(found, axis), curves.training(found, axis)):
            # From the second half of its steps on, where it is at -6.5.
            limits = (-6.5 - 0.05 * 3.5, -3 + 0.08 * 3.5)
            assert drawn(chart).get_ylim() == pytest.approx(limits)
    ends_in_nan = run("short", 8, [(100, -6.0), (300, float("nan"))])
    low, _ = drawn(curves.held_out(findings(long, ends_in_nan), STEPS)).get_ylim()
    assert low < -6


def test_the_speed_up_is_marked_where_the_sparse_run_reaches_the_dense_one():
    chart = curves.held_out(findings(DENSE, SPARSE), STEPS)
    assert "Dotted = dense's last value; ring = another run reaches it" in chart.caption
    ax = drawn(chart)
    # -4 lies a third of the way from -4.5 at step 200 to -3 at step 300: 233.3.
    assert "1.29× speed-up\nat step 233" in texts(ax)
    (ring,) = [one for one in ax.lines if one.get_markeredgecolor() == "#222222"]
    np.testing.assert_allclose(ring.get_xydata(), [[700 / 3, -4.0]])
    slow = dataclasses.replace(SPARSE, evals={"t": series([(0, -8), (300, -4)], 2.0)})
    found = findings(DENSE, slow)
    ax = drawn(curves.held_out(found, both_axes(found)[1]))
    assert "≥ 0.50× speed-up\nat 10 min" in texts(ax)


def test_more_than_two_speed_ups_are_not_marked():
    found = findings(DENSE, *(dataclasses.replace(SPARSE, name=name) for name in "abc"))
    assert texts(drawn(curves.held_out(found, STEPS))) == ["dense", "a", "b", "c"]


def test_the_speed_up_has_a_curve_up_to_where_it_is_known():
    ax = drawn(curves.speedup(findings(DENSE, SPARSE), STEPS))
    # The dense run is at -5 at step 200, at -4.5 at step 250, and never at -3.
    np.testing.assert_allclose(line(ax, COLOURS[1]), [[100, 2.0], [200, 1.25], [300, np.nan]])
    assert line(ax, GREY)[:, 1].tolist() == [1.0, 1.0]
    assert ax.get_ylim() == pytest.approx((0.95, 2.08)) and ax.get_xlim()[0] == 0
    assert texts(ax) == ["sparse"]


def test_steps_that_do_not_compare_have_neither_marks_nor_a_chart():
    other = dataclasses.replace(SPARSE, facts={**SPARSE.facts, "batch_tokens": 4096})
    found = findings(DENSE, other)
    in_steps, in_time = both_axes(found)
    chart = curves.held_out(found, in_steps)
    assert texts(drawn(chart)) == ["dense", "sparse"] and "Dotted" not in chart.caption
    assert curves.speedup(found, in_steps) is None
    assert "1.29× speed-up\nat 3.89 min" in texts(drawn(curves.held_out(found, in_time)))
    assert curves.speedup(found, in_time) is not None


def test_the_axis_of_the_token_accuracy_leaves_out_the_steep_start():
    accuracy = {"accuracy": [0.0, 0.3, 0.4, 0.5]}
    curve = series([(0, -8.0), (100, -6.0), (200, -5.0), (300, -4.0)], **accuracy)
    chart = curves.scores(findings(dataclasses.replace(DENSE, evals={"t": curve})))[0]
    # At a quarter of the steps, step 75, it is at 22.5 %.
    assert drawn(chart).get_ylim() == pytest.approx((22.5 - 0.05 * 27.5, 50 + 0.08 * 27.5))


def test_what_no_run_has_is_no_chart():
    assert curves.speedup(findings(DENSE), STEPS) is None
    late = findings(run("dense", 0, [(100, -4.0)]), run("sparse", 8, [(100, -3.0)]))
    assert curves.speedup(late, STEPS) is None
    assert curves.optimisation(findings(DENSE)) == [None] * 4
    assert curves.held_out(findings(run("new", 0, [(1, -4.0)], task=None)), STEPS) is None


def test_accuracies_of_tokens_and_of_generated_text_have_charts_of_their_own():
    curve = series([(10, -2.0)], accuracy=[0.8712], generated_accuracy=[46.88])
    charts = curves.scores(findings(dataclasses.replace(DENSE, evals={"t": curve})))
    titles = [chart.title for chart in charts]
    assert titles == ["Held-out token accuracy", "Generated text: accuracy"]
    axes = [drawn(chart) for chart in charts]
    assert [ax.get_ylabel() for ax in axes] == ["token accuracy [%]", "accuracy"]
    np.testing.assert_allclose([line(ax, COLOURS[0])[0, 1] for ax in axes], [87.12, 46.88])
