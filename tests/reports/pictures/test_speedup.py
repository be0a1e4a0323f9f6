import numpy as np
import pytest

from switch_jax.reports.drawing import GREY
from switch_jax.reports.pictures.curves import STEPS, axes
from switch_jax.reports.pictures.speedup import speedup, speedup_charts
from tests.reports.by_hand import drawn, findings, run, seed


def curve(ax, colour):
    (line,) = [line for line in ax.lines if line.get_color() == colour]
    return line.get_xydata()


def test_the_speed_up_has_a_curve_for_each_sparse_model_up_to_where_it_is_known():
    dense = run("dense", 0, [(0, -8.0), (100, -6.0), (300, -4.0)])
    sparse = run("sparse", 8, [(0, -8.0), (100, -5.0), (200, -4.5), (300, -3.0)])
    found = findings(dense, sparse)
    ax = drawn(speedup(found, STEPS, found.configurations[0]))
    # The dense run is at -5 at step 200, at -4.5 at step 250, and never at -3.
    expected = [[100, 2.0], [200, 1.25], [300, np.nan]]
    np.testing.assert_allclose(curve(ax, found.configurations[1].colour), expected)
    assert curve(ax, GREY)[:, 1].tolist() == [1.0, 1.0]
    assert ax.get_xlim() == (0, pytest.approx(1.02 * 200))
    assert [text.get_text() for text in ax.texts] == ["sparse"]


def test_the_speed_up_in_time_is_over_time():
    dense = run("dense", 0, [(0, -8.0), (100, -6.0), (300, -4.0)])
    sparse = run("sparse", 8, [(0, -8.0), (100, -5.0)], seconds_per_step=1.6)
    found = findings(dense, sparse)
    ax = drawn(speedup(found, axes(found.configurations)[1], found.configurations[0]))
    np.testing.assert_allclose(curve(ax, found.configurations[1].colour), [[160 / 60, 200 / 160]])
    assert ax.get_ylabel() == "speed-up in time" and ax.get_xlabel() == "training time [min]"


def test_the_speed_up_is_the_mean_over_seeds_with_a_band():
    dense = [(0, -8.0), (100, -6.0), (300, -4.0)]
    runs = [seed(i, "dense", 0, dense) for i in (0, 1)]
    runs += [seed(i, "sparse", 8, [(0, -8.0), (100, x)]) for i, x in ((0, -5.0), (1, -4.5))]
    found = findings(*runs)
    chart = speedup(found, STEPS, found.configurations[0])
    ax = drawn(chart)
    np.testing.assert_allclose(curve(ax, found.configurations[1].colour), [[100, 2.25]])
    (band,) = ax.collections
    assert {y for _, y in band.get_paths()[0].vertices} == {2.0, 2.5}
    assert "band = from the lower to the higher of 2 seeds" in chart.caption


def test_the_first_steps_do_not_set_the_range_of_the_speed_up():
    dense = [(0, -8.0), (100, -7.0), (2000, -4.0)]
    sparse = [(0, -8.0), (10, -7.0), (1000, -5.5), (2000, -4.0)]
    found = findings(run("dense", 0, dense), run("sparse", 8, sparse))
    ax = drawn(speedup(found, STEPS, found.configurations[0]))
    assert curve(ax, found.configurations[1].colour)[0].tolist() == [10, 10.0]
    assert 1.0 < ax.get_ylim()[1] < 1.2


def test_beyond_what_a_dense_run_reaches_the_speed_up_is_of_a_power_law():
    def loss(step):
        return 1.5 + 0.8 * (step / 1000) ** -0.4

    steps = range(100, 6001, 100)
    dense = run("dense", 0, [(0, -9.0), *((s, -loss(s)) for s in steps)])
    sparse = run(
        "sparse", 8, [(0, -9.0), *((s, -loss(4.1 * s)) for s in steps)], seconds_per_step=1.6
    )
    found = findings(dense, sparse)
    _, time = axes(found.configurations)
    for axis, ratio, second in ((STEPS, 4.1, 1.0), (time, 4.1 / 1.6, 1.6 / 60)):
        chart = speedup(found, axis, found.configurations[0])
        ax = drawn(chart)
        dashed = ax.lines[1].get_xydata()
        # The dense run ends at the value of step 6000 / 4.1 = 1463, the law at that of 18000 / 4.1.
        np.testing.assert_allclose(dashed[:, 0], second * np.arange(1500, 4301, 100))
        np.testing.assert_allclose(dashed[:, 1], ratio, rtol=1e-3)
        assert "fit" in [text.get_text() for text in ax.texts]
        assert "through its values from step 2,000 on" in chart.caption
        assert "0.000 nats too" in chart.caption and "at step 6,000" in chart.caption


def test_without_pairs_there_is_no_speed_up():
    assert speedup_charts(findings(run("dense", 0, [(100, -4.0)]))) == [None, None]
    late = [run("dense", 0, [(100, -4.0)]), run("sparse", 8, [(100, -3.0)])]
    assert speedup_charts(findings(*late)) == [None, None]


def test_each_dense_model_has_charts_of_its_own(study):
    titles = [chart.title for chart in speedup_charts(study)]
    assert titles == [
        "Speed-up in steps over dense",
        "Speed-up in time over dense",
        "Speed-up in steps over large",
        "Speed-up in time over large",
    ]
