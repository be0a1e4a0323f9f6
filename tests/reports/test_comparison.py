import dataclasses

import numpy as np
import pytest

from switch_jax.reports.comparison import compare_all
from tests.reports.by_hand import run

DENSE = run("dense", 0, [(100, -6.0), (200, -5.0), (300, -4.0)])


def compare(dense, sparse):
    (comparison,) = compare_all([dense, sparse], "t")
    return comparison


def sentence(points, **options):
    return compare(DENSE, run("switch", 8, points, **options)).sentence


def test_speed_up_interpolates_between_evaluations():
    # -4.0 lies 2/3 of the way from -5.0 at step 100 to -3.5 at step 200: step 166.7; at half a
    # second more per step, 250 s.
    sparse = run("switch", 8, [(100, -5.0), (200, -3.5), (300, -3.0)], seconds_per_step=1.5)
    found = compare(DENSE, sparse)
    assert found.target == -4.0
    assert found.reached == (pytest.approx(500 / 3), pytest.approx(250), False)
    assert found.speedup["steps"] == pytest.approx(1.8)
    assert found.speedup["time"] == pytest.approx(1.2)
    assert found.sentence == (
        "switch reaches dense's final -4.000 at step 167 of 300: 1.80 times sooner in steps, 1.20 "
        "in time; at step 300 it is 1.000 nats ahead."
    )


def test_the_speed_up_is_the_dense_runs_end_over_the_first_crossing():
    found = compare(DENSE, run("switch", 8, [(100, -5.0), (200, -3.0), (300, -5.0), (400, -3.0)]))
    assert (found.reached.step, found.speedup["steps"]) == (150, 300 / 150)


@pytest.mark.parametrize("start", [[], [(0, -9.0)], [(0, -3.9)]])
def test_reached_at_the_first_evaluation_after_step_0_is_a_bound(start):
    found = compare(DENSE, run("switch", 8, [*start, (100, -3.0)]))
    assert found.reached[::2] == (100, True)
    assert ": at least 3.00 times sooner in steps, 3.00 in time; " in found.sentence


def test_the_lead_is_that_at_the_last_step_at_which_both_were_evaluated():
    points = [(0, -9.0), (150, -5.75), (200, -4.5), (250, -3.25), (400, -3.0)]
    assert sentence(points).endswith(
        "; at step 200, the last that both have, it is 0.500 nats ahead."
    )
    for apart in ([(0, -9.0), (150, -5.75), (250, -3.25), (400, -3.0)], [(400, -3.0)]):
        assert sentence(apart).endswith(" in time; there is no step at which both were evaluated.")


def test_the_dense_runs_final_value_may_never_be_reached():
    # At step 200 the dense curve is at -5.0.
    found = compare(DENSE, run("switch", 8, [(100, -7.0), (200, -4.5)]))
    assert np.isnan([found.reached.step, found.speedup["steps"], found.speedup["time"]]).all()
    assert found.sentence == (
        "switch does not reach dense's final -4.000 in 200 steps; at step 200, the last that both "
        "have, it is 0.500 nats ahead."
    )


def zigzag(final, height):
    """Ten evaluations on a straight line that ends at `final`, above and below it by turns."""
    steps = range(100, 1001, 100)
    values = [final - (1000 - s) / 1000 - (height if s % 200 else -height) for s in steps]
    return list(zip(steps, values, strict=True))


def test_a_lead_that_is_smaller_than_the_scatter_of_the_curves_is_none():
    # An evaluation lies 2 x 0.01 above or below the line through its neighbours. Those at steps 500
    # to 900 have the mean -0.004, and the deviation sqrt((3 x 0.016^2 + 2 x 0.024^2) / 4) = 0.0219.
    dense = run("dense", 0, zigzag(-3.0, 0.01))
    near = compare(dense, run("switch", 8, zigzag(-2.98, 0.0)))
    assert near.sentence == (
        "switch is level with dense at step 1,000: 0.010 nats ahead, where the curves scatter by "
        "0.022."
    )
    ahead = compare(dense, run("switch", 8, zigzag(-2.96, 0.0))).sentence
    assert ahead.endswith("; at step 1,000 it is 0.030 nats ahead.")
    # Curves that bend alike everywhere do not scatter, nor do those of few evaluations.
    smooth = [(s, -3.0 - (s / 1000 - 1) ** 2) for s in range(100, 1001, 100)]
    bent = compare(run("dense", 0, smooth), run("switch", 8, [(s, x + 0.001) for s, x in smooth]))
    assert bent.sentence.endswith("; at step 1,000 it is 0.001 nats ahead.")
    assert sentence([(100, -9.0), (200, -3.0), (300, -4.001)]).endswith("0.001 nats behind.")
    level = "switch is level with dense at step 300: 0.000 nats behind."
    assert sentence([(100, -7.0), (300, -4.0001)]) == level


def test_a_dense_run_that_goes_on_has_a_latest_value_and_without_times_there_are_steps_alone():
    dense = dataclasses.replace(DENSE, unfinished=True)
    sparse = run("switch", 8, [(100, -7.0), (300, -3.0)], seconds_per_step=float("nan"))
    assert compare(dense, sparse).sentence.startswith(
        "switch reaches dense's latest -4.000 at step 250 of 300: 1.20 times sooner in steps; "
    )


def test_the_speed_up_over_training():
    dense = run("dense", 0, [(0, -8.0), (100, -6.0), (200, -5.0), (400, -4.0)])
    points = [(0, -8.0), (100, -7.0), (200, -4.5), (300, -4.0), (400, -3.5)]
    curve = compare(dense, run("switch", 8, points, seconds_per_step=1.5)).speedups
    assert curve.step.tolist() == [100, 200, 300, 400]
    # The dense run has -7 somewhere before step 100, -4.5 at 300, -4 at 400, and never -3.5.
    np.testing.assert_allclose(curve.values["steps"], [np.nan, 1.5, 4 / 3, np.nan])
    np.testing.assert_allclose(curve.values["time"], np.array([np.nan, 1.5, 4 / 3, np.nan]) / 1.5)
    # Nor is it known without step 0; and the first tenth is not shown.
    late = run("switch", 8, [(10, -7.0), (50, -7.0), (100, -6.0), (150, -5.0)])
    curve = compare(DENSE, late).speedups
    assert curve.step.tolist() == [50, 100, 150]
    np.testing.assert_allclose(curve.values["steps"], [np.nan, np.nan, 200 / 150])


def names(*runs, task="t"):
    return [(found.baseline.name, found.run.name) for found in compare_all(runs, task)]


def test_every_sparse_run_is_compared_with_the_best_dense_one():
    worse, best = run("worse", 0, [(100, -4.5)]), run("best", 0, [(100, -3.5)])
    diverged = run("diverged", 0, [(50, -3.0), (100, float("nan"))])
    unknown = dataclasses.replace(DENSE, name="unknown", facts={})
    sparse = [run(name, n, [(100, -4.0)]) for name, n in (("four", 4), ("eight", 8))]
    found = names(worse, sparse[0], best, diverged, unknown, sparse[1])
    assert found == [("best", "four"), ("best", "eight")]
    assert names(worse, *sparse) == [("worse", "four"), ("worse", "eight")]
    assert names(*sparse, diverged) == [("four", "eight")], "no dense run ends in a number"
    assert names(worse, best, diverged) == [("worse", "best"), ("worse", "diverged")]
    assert names(best, worse) == [("worse", "best")], "dense runs alone, as sparse runs alone"
    assert names(best) == names(diverged) == []
    going = run("going", 0, [(50, -9.0)], train_steps=100)
    assert names(going, worse, best) == [("worse", "going"), ("worse", "best")]
    ahead = run("ahead", 0, [(50, -3.0)], train_steps=100)
    assert names(ahead, worse, sparse[0]) == [("worse", "four")], "it may get worse"


def test_two_sparse_runs_have_a_verdict():
    # Of sparse runs alone the one with the worst end is the baseline, wherever it stands.
    top_1 = run("top_1", 8, [(100, -6.0), (200, -5.0), (300, -4.0)])
    top_2 = run("top_2", 8, [(100, -5.0), (200, -3.5), (300, -3.0)])
    assert names(top_1, top_2) == names(top_2, top_1) == [("top_1", "top_2")]
    # -4 lies 2/3 of the way from -5 at step 100 to -3.5 at step 200.
    assert compare(top_2, top_1).sentence == (
        "top_2 reaches top_1's final -4.000 at step 167 of 300: 1.80 times sooner in steps, 1.80 "
        "in time; at step 300 it is 1.000 nats ahead."
    )
    diverged = run("diverged", 8, [(100, -5.0), (200, float("nan"))])
    assert names(top_2, diverged) == [("top_2", "diverged")]
    assert names(top_2) == names(diverged) == []


def test_nothing_to_compare():
    sparse = run("switch", 8, [(100, -3.0)])
    for dense in (
        run("dense", 0, [(0, -9.0)]),
        run("dense", 0, [(100, float("nan"))]),
        run("dense", 0, [(100, -4.0)], task=None),
    ):
        assert names(dense, sparse) == names(sparse, dense) == []
    assert names(DENSE, sparse, task=None) == []


@pytest.mark.parametrize("source", ["initial_checkpoint", "teacher_checkpoint"])
def test_a_run_that_learnt_from_another_one_has_no_speed_up(source):
    runs = [run("d", 0, [(100, -4.0)]), run("s", 8, [(100, -3.0)])]
    assert names(*runs) == [("d", "s")]
    for i in range(2):
        facts = {**runs[i].facts, source: "/run/checkpoints/4"}
        tuned = [*runs[:i], dataclasses.replace(runs[i], facts=facts), *runs[i + 1 :]]
        assert names(*tuned) == []


def differing(**facts):
    points = [(100, -5.0), (200, -3.5), (300, -3.0)]
    return compare(DENSE, run("switch", 8, points, seconds_per_step=1.5, **facts))


@pytest.mark.parametrize(
    ("facts", "values"),
    [
        ({"batch_tokens": 4096}, "batch_tokens (2,048 and 4,096)"),
        ({"flops_per_token": 1e6}, "flops_per_token (not stated and 1,000,000)"),
    ],
)
def test_runs_whose_steps_differ_are_compared_in_time_alone(facts, values):
    found = differing(**facts)
    note = f"dense and switch differ in {values}: do not compare their steps"
    assert found.notes == [note]
    assert found.sentence == (
        "switch reaches dense's final -4.000 at step 167 of 300: 1.20 times sooner in time."
    )
    assert np.isnan(found.speedup["steps"]) and found.speedup["time"] == pytest.approx(1.2)
    assert np.isnan(found.speedups.get("steps")).all()
    # The dense run has -5 at 200 s, -3.5 and -3 never.
    np.testing.assert_allclose(found.speedups.get("time"), [200 / 150, np.nan, np.nan])


def test_runs_on_other_devices_are_compared_in_steps_alone():
    found = differing(device="TPU v5e x 8")
    values = "device (cpu x 2 and TPU v5e x 8)"
    assert found.notes == [f"dense and switch differ in {values}: do not compare their time"]
    assert found.sentence == (
        "switch reaches dense's final -4.000 at step 167 of 300: 1.80 times sooner in steps; at "
        "step 300 it is 1.000 nats ahead."
    )
    assert np.isnan(found.speedup["time"]) and np.isnan(found.speedups.get("time")).all()


def test_runs_that_differ_in_both_have_no_speed_up():
    found = differing(device="TPU v5e x 8", batch_tokens=4096)
    assert found.sentence == "switch reaches dense's final -4.000 at step 167 of 300."
    late = run("switch", 8, [(100, -7.0), (300, -4.0)], batch_tokens=4096)
    assert " is level " not in compare(DENSE, late).sentence


def test_a_run_that_diverged_has_a_note():
    diverged = compare(DENSE, run("switch", 8, [(100, -7.0), (200, -4.5), (300, float("nan"))]))
    assert "; at step 200, the last that both have, it is 0.500 nats" in diverged.sentence
    assert diverged.notes == ["switch's last value is not a number: it may have diverged"]
