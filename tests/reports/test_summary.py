import dataclasses

import numpy as np
import pytest

from switch_jax.errors import UserError
from switch_jax.reports import summary
from switch_jax.reports.runs import Run, Series


def series(points, seconds_per_step=1.0):
    step, value = (np.array(column) for column in zip(*points, strict=True))
    return Series(step, step * seconds_per_step, {"neg_log_perplexity": value})


def run(name, experts, points, *, seconds_per_step=1.0, task="t", **facts):
    curve = series(points, seconds_per_step)
    facts = {"num_experts": experts, "batch_tokens": 2048, "device": "cpu x 2", **facts}
    return Run(name, name, facts, "", curve, {task: curve} if task else {}, (), 0)


DENSE = run("dense", 0, [(100, -6.0), (200, -5.0), (300, -4.0)])


def test_speed_up_interpolates_between_evaluations():
    # -4.0 lies 2/3 of the way from -5.0 at step 100 to -3.5 at step 200: step 166.7; at half a
    # second more per step, 250 s.
    sparse = run("switch", 8, [(100, -5.0), (200, -3.5), (300, -3.0)], seconds_per_step=1.5)
    pair = summary.compare(DENSE, sparse, "t")
    assert pair.target == -4.0
    assert pair.step == pytest.approx(500 / 3)
    assert pair.seconds == pytest.approx(250)
    assert pair.step_speedup == pytest.approx(1.8)
    assert pair.time_speedup == pytest.approx(1.2)
    assert pair.sentence() == (
        "switch reaches dense's final held-out value (-4.000 at step 300) at step 167: "
        "a speed-up of 1.80× in steps (300 / 167) and 1.20× in time (5 / 4.17 min)."
    )


def test_the_first_crossing_counts():
    sparse = run("switch", 8, [(100, -5.0), (200, -3.0), (300, -5.0), (400, -3.0)])
    assert summary.compare(DENSE, sparse, "t").step == pytest.approx(150)


def test_runs_of_unequal_length_compare_at_the_dense_runs_own_end():
    sparse = run("switch", 8, [(150, -5.0), (600, -3.5)])
    assert summary.compare(DENSE, sparse, "t").step == pytest.approx(450)
    assert summary.compare(DENSE, sparse, "t").step_speedup == pytest.approx(2 / 3)


def test_never_reached_is_said_plainly():
    sparse = run("switch", 8, [(100, -5.0), (200, -4.25), (300, -4.5)])
    pair = summary.compare(DENSE, sparse, "t")
    assert pair.step is None and pair.step_speedup is None and pair.time_speedup is None
    assert pair.sentence() == (
        "switch never reaches dense's final held-out value (-4.000 at step 300); "
        "its best is -4.250. There is no speed-up to state."
    )


def test_a_run_still_going_has_not_reached_it_yet():
    sparse = run("switch", 8, [(100, -5.0)], train_steps=300)
    assert "switch has not reached" in summary.compare(DENSE, sparse, "t").sentence()


@pytest.mark.parametrize("start", [[], [(0, -9.0)], [(0, -3.9)]])
def test_reached_at_the_first_evaluation_is_a_bound_unless_step_0_was_evaluated(start):
    sparse = run("switch", 8, [*start, (100, -3.0)])
    pair = summary.compare(DENSE, sparse, "t")
    if start == [(0, -9.0)]:
        assert pair.step == pytest.approx(100 * 5 / 6) and not pair.at_first
    else:
        assert pair.step == 100 and pair.at_first
        assert "at or before its first evaluation, step 100" in pair.sentence()
        assert "at least 3.00× in steps" in pair.sentence()


def test_nothing_to_compare():
    sparse = run("switch", 8, [(100, -3.0)])
    assert summary.compare(run("dense", 0, [(0, -9.0)]), sparse, "t") is None
    assert summary.compare(run("dense", 0, [(100, float("nan"))]), sparse, "t") is None
    assert summary.compare(run("dense", 0, [(100, -4.0)], task=None), sparse, "t") is None


def test_every_dense_run_meets_every_sparse_run():
    unknown = dataclasses.replace(DENSE, name="unknown", facts={})
    runs = [run(n, e, [(100, -4.0)]) for n, e in (("d1", 0), ("s1", 4), ("d2", 0), ("s2", 8))]
    pairs = summary.comparisons([*runs, unknown], "t")
    names = [(pair.dense.name, pair.sparse.name) for pair in pairs]
    assert names == [("d1", "s1"), ("d1", "s2"), ("d2", "s1"), ("d2", "s2")]


def test_a_fine_tuned_run_has_no_speed_up():
    runs = [run("d", 0, [(100, -4.0)]), run("s", 8, [(100, -3.0)])]
    assert len(summary.comparisons(runs, "t")) == 1
    for i in range(2):
        tuned = list(runs)
        facts = {**runs[i].facts, "initial_checkpoint": "/run/checkpoints/4"}
        tuned[i] = dataclasses.replace(runs[i], facts=facts)
        assert summary.comparisons(tuned, "t") == []


def test_caveats_name_what_differs():
    dense = run("dense", 0, [(100, -4.0)], train_steps=1000)
    sparse = run("switch", 8, [(100, -4.0)], batch_tokens=4096, device="TPU v5e x 8")
    text = " ".join(summary.compare(dense, sparse, "t").caveats())
    assert "dense is not finished (step 100 of 1,000)" in text
    assert "2,048 and 4,096" in text and "cpu x 2 and TPU v5e x 8" in text
    assert summary.compare(DENSE, run("switch", 8, [(100, -4.0)]), "t").caveats() == []


def test_skipped_steps_are_reported():
    sparse = run("switch", 8, [(100, -4.0), (200, -3.0)])
    assert "Steps skipped as bad" not in dict(summary.final_numbers([DENSE, sparse], "t"))
    values = {**sparse.train.values, "skipped_steps": np.array([2.0, 1.0])}
    skipping = dataclasses.replace(sparse, train=dataclasses.replace(sparse.train, values=values))
    rows = dict(summary.final_numbers([DENSE, skipping], "t"))
    assert rows["Steps skipped as bad"] == ["0", "3"]
    (note,) = summary.compare(DENSE, skipping, "t").caveats()
    assert note.startswith("switch skipped 3 steps as bad")


def test_the_held_out_task_is_one_all_runs_have():
    a, b, none = (run("r", 0, [(100, -4.0)], task=task) for task in ("a", "b", None))
    both = dataclasses.replace(a, evals={"a": a.train, "all": a.train})
    assert summary.held_out_task([none]) is None
    assert summary.held_out_task([both, none]) == "all"
    assert summary.held_out_task([both, a]) == "a"
    with pytest.raises(UserError, match="no held-out task in common"):
        summary.held_out_task([a, b])
    tuned = run("r", 0, [(100, -4.0)], task="c", initial_checkpoint="/run/checkpoints/4")
    assert summary.held_out_task([a, tuned]) is None
    assert summary.empty_rows([a, tuned], None) == (
        "the runs have no held-out task in common (r: a; r: c), so the rows of held-out numbers "
        "are empty"
    )
    assert summary.empty_rows([a, none], "a") is None
    assert summary.empty_rows([none], None) is None


def test_what_a_run_does_not_state_is_reported_from_what_it_had_not():
    runs = [run("old", 0, [(1, -4.0)]), run("new", 0, [(1, -4.0)], initial_checkpoint=None)]
    assert dict(summary.facts_table(runs))["initial_checkpoint"] == ["not stated", "none"]


def test_final_numbers_and_their_text_table():
    dense = run("dense", 0, [(100, -2.0)], train_steps=200, parameters=1_234_567)
    going = run("new", 8, [(50, -3.0)], task=None)
    rows = dict(summary.final_numbers([dense, going], "t"))
    assert rows["Held-out neg. log perplexity [nats]"] == ["-2.000", "not yet"]
    assert rows["Held-out perplexity"] == ["7.389", "not yet"]
    assert rows["Steps"] == ["100 of 200", "50"]
    assert rows["Parameters"] == ["1,234,567", "not stated"]
    table = summary.text_table([dense, going], [("Steps", ["100", "5"])])
    assert table == "       dense  new\nSteps    100    5"
