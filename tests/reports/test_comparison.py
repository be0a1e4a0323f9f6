import dataclasses

import numpy as np
import pytest

from switch_jax.reports.comparison import caveats, compare, compare_all
from switch_jax.reports.configurations import group_runs
from tests.reports.by_hand import run, seed

DENSE = run("dense", 0, [(100, -6.0), (200, -5.0), (300, -4.0)])


def test_speed_up_interpolates_between_evaluations():
    # -4.0 lies 2/3 of the way from -5.0 at step 100 to -3.5 at step 200: step 166.7; at half a
    # second more per step, 250 s.
    sparse = run("switch", 8, [(100, -5.0), (200, -3.5), (300, -3.0)], seconds_per_step=1.5)
    pair = compare(DENSE, sparse, "t")
    assert pair.target == -4.0
    assert pair.reached == (pytest.approx(500 / 3), pytest.approx(250), False)
    assert pair.step_speedup == pytest.approx(1.8)
    assert pair.time_speedup == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("points", "step"),
    [
        ([(100, -5.0), (200, -3.0), (300, -5.0), (400, -3.0)], 150),  # the first crossing counts
        ([(150, -5.0), (600, -3.5)], 450),  # after the dense run's own end
    ],
)
def test_the_speed_up_is_the_dense_runs_end_over_the_first_crossing(points, step):
    pair = compare(DENSE, run("switch", 8, points), "t")
    assert pair.reached.step == pytest.approx(step)
    assert pair.step_speedup == pytest.approx(300 / step)


def test_never_reached():
    pair = compare(DENSE, run("switch", 8, [(100, -5.0), (200, -4.25), (300, -4.5)]), "t")
    assert not pair.has_reached and np.isnan([pair.step_speedup, pair.time_speedup]).all()


@pytest.mark.parametrize("start", [[], [(0, -9.0)], [(0, -3.9)]])
def test_reached_at_the_first_evaluation_is_a_bound_unless_step_0_was_evaluated(start):
    sparse = run("switch", 8, [*start, (100, -3.0)])
    pair = compare(DENSE, sparse, "t")
    if start == [(0, -9.0)]:
        assert pair.reached[::2] == (pytest.approx(100 * 5 / 6), False)
        assert caveats([pair]) == []
    else:
        assert pair.reached[::2] == (100, True)
        assert caveats([pair]) == [
            "switch has dense's final value at its first evaluation, step 100: the speed-up is at "
            "least what is stated."
        ]


def test_the_lead_is_known_where_both_curves_are():
    # The dense curve at 150 is -5.5, at 250 -4.5; the sparse one at 200 is -4.5.
    sparse = run("switch", 8, [(0, -9.0), (150, -5.75), (250, -3.25), (400, -3.0)])
    pair = compare(DENSE, sparse, "t")
    step, lead = pair.lead
    np.testing.assert_allclose(step, [150, 200, 250, 300])
    np.testing.assert_allclose(lead, [-0.25, 0.5, 1.25, -3.25 + 0.25 / 3 + 4.0])
    assert pair.final_lead == pytest.approx(5 / 6)
    # From -0.25 at step 150 to 0.5 at step 200: zero after a third of the way.
    assert pair.in_front_from == pytest.approx(150 + 50 / 3)
    assert not pair.always_in_front


@pytest.mark.parametrize(("sign", "in_front"), [(1, 125.0), (-1, 125.0), (0, np.nan)])
def test_in_front_is_whoever_is_so_at_the_end(sign, in_front):
    # Half a nat behind at step 100 and half a nat ahead from 150 on, or the other way round.
    leads = np.array([-0.5, 0.5]) * sign
    points = [(100, -6.0 + leads[0]), (150, -5.5 + leads[1]), (300, -4.0 + leads[1])]
    pair = compare(DENSE, run("switch", 8, points), "t")
    np.testing.assert_equal(pair.in_front_from, in_front)
    assert pair.final_lead == 0.5 * sign


def test_always_in_front_and_runs_that_do_not_overlap():
    pair = compare(DENSE, run("switch", 8, [(0, -9.5), (100, -5.0), (300, -3.0)]), "t")
    assert pair.always_in_front and pair.in_front_from == 100
    later = compare(DENSE, run("switch", 8, [(400, -3.0)]), "t")
    assert np.isnan([later.final_lead, later.in_front_from]).all() and not later.always_in_front


def test_the_lead_on_content_is_known_where_both_have_it():
    dense = run("dense", 0, [(100, -3.0), (200, -2.0)], content=[-4.0, -3.0])
    sparse = run("switch", 8, [(100, -3.0), (200, -1.0)], content=[-4.0, -2.5])
    assert compare(dense, sparse, "t").content_lead == pytest.approx(0.5)
    assert np.isnan(compare(DENSE, sparse, "t").content_lead)


def test_the_speed_up_over_training():
    dense = run("dense", 0, [(0, -8.0), (100, -6.0), (200, -5.0), (400, -4.0)])
    sparse = run(
        "switch",
        8,
        [(0, -8.0), (100, -7.0), (200, -4.5), (300, -4.0), (400, -3.5)],
        seconds_per_step=1.5,
    )
    curve = compare(dense, sparse, "t").speedups
    assert curve.step.tolist() == [100, 200, 300, 400]
    # The dense run has -7 at step 50, -4.5 at 300, -4 at 400, and never -3.5.
    np.testing.assert_allclose(curve.values["steps"], [0.5, 1.5, 4 / 3, np.nan])
    np.testing.assert_allclose(curve.values["time"], np.array([0.5, 1.5, 4 / 3, np.nan]) / 1.5)


def test_before_the_dense_runs_first_evaluation_the_speed_up_is_not_known():
    sparse = run("switch", 8, [(50, -7.0), (100, -6.0), (150, -5.0)])
    in_steps = compare(DENSE, sparse, "t").speedups.values["steps"]
    np.testing.assert_allclose(in_steps, [np.nan, np.nan, 200 / 150])


def test_nothing_to_compare():
    sparse = run("switch", 8, [(100, -3.0)])
    assert compare(run("dense", 0, [(0, -9.0)]), sparse, "t") is None
    assert compare(run("dense", 0, [(100, float("nan"))]), sparse, "t") is None
    assert compare(run("dense", 0, [(100, -4.0)], task=None), sparse, "t") is None


def names(runs):
    found = compare_all(group_runs(runs), "t")
    return [(pair.dense.name, pair.sparse.name) for c in found for pair in c.pairs]


def test_every_dense_run_meets_every_sparse_run():
    unknown = dataclasses.replace(DENSE, name="unknown", facts={})
    runs = [run(n, e, [(100, -4.0)]) for n, e in (("d1", 0), ("s1", 4), ("d2", 0), ("s2", 8))]
    pairs = [("d1", "s1"), ("d1", "s2"), ("d2", "s1"), ("d2", "s2")]
    assert names([*runs, unknown]) == pairs


def test_runs_of_one_seed_meet():
    dense = [seed(i, "dense", 0, [(100, -4.0)]) for i in (0, 1, 2)]
    sparse = [seed(i, "switch", 8, [(100, -3.0)]) for i in (2, 1)]
    assert names([*dense, *sparse]) == [("dense_1", "switch_1"), ("dense_2", "switch_2")]
    other = [seed(7, "switch", 8, [(100, -3.0)])]
    assert names([*dense, *other]) == [(f"dense_{i}", "switch_7") for i in (0, 1, 2)]


def test_pairs_still_going_are_left_out_where_others_are_finished():
    plan = {"train_steps": 100}
    dense = [seed(i, "dense", 0, [(x, -4.0)], **plan) for i, x in ((0, 100), (1, 100), (2, 50))]
    sparse = [seed(i, "switch", 8, [(x, -3.0)], **plan) for i, x in ((0, 50), (1, 100), (2, 100))]
    assert names([*dense, *sparse]) == [("dense_1", "switch_1")]
    going = [("dense_0", "switch_0"), ("dense_2", "switch_2")]
    assert names([dense[0], dense[2], sparse[0], sparse[2]]) == going


@pytest.mark.parametrize("source", ["initial_checkpoint", "teacher_checkpoint"])
def test_a_run_that_learnt_from_another_one_has_no_speed_up(source):
    runs = [run("d", 0, [(100, -4.0)]), run("s", 8, [(100, -3.0)])]
    assert names(runs) == [("d", "s")]
    for i in range(2):
        tuned = list(runs)
        facts = {**runs[i].facts, source: "/run/checkpoints/4"}
        tuned[i] = dataclasses.replace(runs[i], facts=facts)
        assert names(tuned) == []


def test_caveats_name_what_differs():
    dense = run("dense", 0, [(100, -4.0)], train_steps=1000, flops_per_token=3.5e6)
    other = {"batch_tokens": 4096, "device": "TPU v5e x 8", "flops_per_token": 1e6}
    sparse = run("switch", 8, [(50, -9.0), (100, -4.0)], **other)
    text = " ".join(caveats([compare(dense, sparse, "t")]))
    assert "dense is not finished (step 100 of 1,000)" in text
    assert "2,048 and 4,096" in text and "cpu x 2 and TPU v5e x 8" in text
    assert "FLOPs per token differ" in text and "3,500,000 and 1,000,000" in text
    same = run("switch", 8, [(50, -9.0), (100, -4.0)])
    assert caveats([compare(DENSE, same, "t")]) == []


def test_caveats_that_hold_for_several_pairs_are_one_sentence():
    dense = run("dense", 0, [(100, -4.0)], train_steps=1000, device="a")
    sparse = [run(name, 8, [(50, -9.0), (100, -4.0)], device="b") for name in ("s1", "s2")]
    assert caveats([compare(dense, s, "t") for s in sparse]) == [
        "dense is not finished (step 100 of 1,000): its final value is the value so far.",
        "dense and s1, s2: devices differ, so compare steps, not time (a and b).",
    ]
