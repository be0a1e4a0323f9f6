import numpy as np
import pytest
from matplotlib.figure import Figure

from switch_jax.reports.configurations import group_runs
from switch_jax.reports.curves import STEPS, time_axis
from switch_jax.reports.figures import GREY
from switch_jax.reports.study_charts import loss_against_parameters, speedup, speedup_charts
from tests.reports.by_hand import run, seed


def drawn(chart):
    ax = Figure().add_subplot()
    chart.draw(ax)
    return ax


def curve(ax, colour):
    (line,) = [line for line in ax.lines if line.get_color() == colour]
    return line.get_xydata()


@pytest.fixture
def study():
    """Dense with two seeds, 2 and 4 experts of the same FLOPs, and a larger dense model."""
    runs = [
        seed(0, "dense", 0, [(100, -4.0), (200, -3.0)], parameters=100, flops_per_token=1.0),
        seed(1, "dense", 0, [(100, -4.5), (200, -3.5)], parameters=100, flops_per_token=1.0),
        seed(0, "two", 2, [(100, -3.5), (200, -2.5)], parameters=200, flops_per_token=1.0),
        seed(0, "four", 4, [(100, -3.25)], parameters=400, flops_per_token=1.0),
        seed(0, "large", 0, [(100, -3.0), (200, -2.0)], parameters=350, flops_per_token=3.5),
    ]
    return group_runs(runs)


def test_loss_against_parameters_at_the_last_step_of_all(study):
    chart = loss_against_parameters(study, "t")
    assert "Held-out loss at step 100, the last that all have" in chart.caption
    assert "bar = from the lower to the higher of 2 seeds" in chart.caption
    ax = drawn(chart)
    assert ax.get_xscale() == "log" and ax.get_ylabel() == "loss at step 100 [nats]"
    joined, alone, *points = [line.get_xydata().tolist() for line in ax.lines]
    assert joined == [[100, 4.25], [200, 3.5], [400, 3.25]]  # of equal FLOPs
    assert alone == [[350, 3.0]]
    assert points == [[[100, 4.25]], [[350, 3.0]], [[200, 3.5]], [[400, 3.25]]]
    labels = [text.get_text() for text in ax.texts]
    assert labels == ["dense", "large", "2", "4"]
    (bar,) = [
        path.vertices
        for bars in ax.collections
        for path in bars.get_paths()
        if np.isfinite(path.vertices).all()
    ]
    np.testing.assert_allclose(bar, [[100, 4.0], [100, 4.5]])


def test_without_a_common_step_or_sizes_there_is_no_loss_against_parameters():
    apart = [run("a", 0, [(100, -4.0)], parameters=1), run("b", 8, [(50, -4.0)], parameters=2)]
    assert loss_against_parameters(group_runs(apart), "t") is None
    unknown = [run("a", 0, [(100, -4.0)]), run("b", 8, [(100, -4.0)], parameters=2)]
    assert loss_against_parameters(group_runs(unknown), "t") is None


def test_the_speed_up_has_a_curve_for_each_sparse_model_up_to_where_it_is_known():
    dense = run("dense", 0, [(0, -8.0), (100, -6.0), (300, -4.0)])
    sparse = run("sparse", 8, [(0, -8.0), (100, -5.0), (200, -4.5), (300, -3.0)])
    found = group_runs([dense, sparse])
    ax = drawn(speedup(found, "t", STEPS, found[0]))
    # The dense run is at -5 at step 200, at -4.5 at step 250, and never at -3.
    np.testing.assert_allclose(curve(ax, found[1].colour), [[100, 2.0], [200, 1.25], [300, np.nan]])
    assert curve(ax, GREY)[:, 1].tolist() == [1.0, 1.0]
    assert ax.get_xlim() == (0, pytest.approx(1.02 * 200))
    assert [text.get_text() for text in ax.texts] == ["sparse"]


def test_the_speed_up_in_time_is_over_time():
    dense = run("dense", 0, [(0, -8.0), (100, -6.0), (300, -4.0)])
    sparse = run("sparse", 8, [(0, -8.0), (100, -5.0)], seconds_per_step=1.6)
    found = group_runs([dense, sparse])
    ax = drawn(speedup(found, "t", time_axis(found), found[0]))
    np.testing.assert_allclose(curve(ax, found[1].colour), [[160 / 60, 200 / 160]])
    assert ax.get_ylabel() == "speed-up in time" and ax.get_xlabel() == "training time [min]"


def test_the_speed_up_is_the_mean_over_seeds_with_a_band():
    dense = [(0, -8.0), (100, -6.0), (300, -4.0)]
    runs = [seed(i, "dense", 0, dense) for i in (0, 1)]
    runs += [seed(i, "sparse", 8, [(0, -8.0), (100, x)]) for i, x in ((0, -5.0), (1, -4.5))]
    found = group_runs(runs)
    chart = speedup(found, "t", STEPS, found[0])
    ax = drawn(chart)
    np.testing.assert_allclose(curve(ax, found[1].colour), [[100, 2.25]])
    (band,) = ax.collections
    assert {y for _, y in band.get_paths()[0].vertices} == {2.0, 2.5}
    assert "band = from the lower to the higher of 2 seeds" in chart.caption


def test_the_first_steps_do_not_set_the_range_of_the_speed_up():
    dense = [(0, -8.0), (100, -7.0), (2000, -4.0)]
    sparse = [(0, -8.0), (10, -7.0), (1000, -5.5), (2000, -4.0)]
    found = group_runs([run("dense", 0, dense), run("sparse", 8, sparse)])
    ax = drawn(speedup(found, "t", STEPS, found[0]))
    assert curve(ax, found[1].colour)[0].tolist() == [10, 10.0]
    assert 1.0 < ax.get_ylim()[1] < 1.2


def test_beyond_what_a_dense_run_reaches_the_speed_up_is_of_a_power_law():
    def loss(step):
        return 1.5 + 0.8 * (step / 1000) ** -0.4

    steps = range(100, 6001, 100)
    dense = run("dense", 0, [(0, -9.0), *((s, -loss(s)) for s in steps)])
    sparse = run(
        "sparse", 8, [(0, -9.0), *((s, -loss(4.1 * s)) for s in steps)], seconds_per_step=1.6
    )
    found = group_runs([dense, sparse])
    for axis, ratio, second in ((STEPS, 4.1, 1.0), (time_axis(found), 4.1 / 1.6, 1.6 / 60)):
        chart = speedup(found, "t", axis, found[0])
        ax = drawn(chart)
        dashed = ax.lines[1].get_xydata()
        # The dense run ends at the value of step 6000 / 4.1 = 1463, the law at that of 18000 / 4.1.
        np.testing.assert_allclose(dashed[:, 0], second * np.arange(1500, 4301, 100))
        np.testing.assert_allclose(dashed[:, 1], ratio, rtol=1e-3)
        assert "fit" in [text.get_text() for text in ax.texts]
        assert "through its values from step 2,000 on" in chart.caption
        assert "0.000 nats too" in chart.caption and "at step 6,000" in chart.caption


def test_without_pairs_there_is_no_speed_up():
    assert speedup_charts(group_runs([run("dense", 0, [(100, -4.0)])]), "t") == []
    late = [run("dense", 0, [(100, -4.0)]), run("sparse", 8, [(100, -3.0)])]
    assert speedup_charts(group_runs(late), "t") == []


def test_each_dense_model_has_charts_of_its_own(study):
    titles = [chart.title for chart in speedup_charts(study, "t")]
    assert titles == [
        "Speed-up in steps over dense",
        "Speed-up in time over dense",
        "Speed-up in steps over large",
        "Speed-up in time over large",
    ]
