import dataclasses

import numpy as np

from tests.reports.by_hand import findings, run, seed

POINTS = [(100, -6.0), (200, -5.0)]


def notes_on(*runs):
    return findings(*runs).notes


def test_the_held_out_task_is_one_all_runs_have():
    a, b, none = (run("r", 0, [(100, -4.0)], task=task) for task in ("a", "b", None))
    both = dataclasses.replace(a, evals={"a": a.train, "all": a.train})
    assert findings(none).task is None and notes_on(none) == []
    assert findings(both, none).task == "all"
    assert findings(both, a).task == "a"
    assert notes_on(a, none) == []
    apart = findings(a, b)
    assert apart.task is None
    assert [apart.held_out(r) for r in (a, b, both, none)] == [a.train, b.train, a.train, None]
    assert [r.own_task for r in (a, b, both, none)] == ["a", "b", "all", None]
    assert apart.notes == [
        "the runs have no held-out task in common (r: a; r: b), so each has the numbers of its "
        "own, which do not compare"
    ]


def test_seeds_that_took_different_times_for_a_step_are_noted():
    even = [seed(i, "dense", 0, POINTS, seconds_per_step=s) for i, s in enumerate((1.0, 1.2))]
    assert notes_on(*even) == []
    uneven = [seed(i, "switch", 8, POINTS, seconds_per_step=s) for i, s in enumerate((1.0, 0.5))]
    assert notes_on(*even, *uneven) == [
        "a step of switch took 500 to 1,000 ms, by the seed, though all compute the same: compare "
        "steps, not time"
    ]
    unknown = dataclasses.replace(uneven[0].train, seconds=np.full(2, np.nan))
    without = dataclasses.replace(uneven[0], train=unknown, evals={"t": unknown})
    assert notes_on(without, uneven[1]) == []


def test_switch_runs_without_a_dense_one_are_noted():
    eight, sixteen = run("eight", 8, POINTS), run("sixteen", 16, POINTS)
    (note,) = notes_on(eight, sixteen)
    assert note.startswith("no run is dense, so nothing says how much sooner these are than a")
    assert notes_on(eight) == [] and notes_on(eight, sixteen, run("dense", 0, POINTS)) == []


def test_time_that_is_counted_anew_is_noted_by_configuration():
    runs = [seed(i, "dense", 0, POINTS, step_ms=158.1) for i in range(2)]
    runs += [run("switch", 8, POINTS, step_ms=183), run("by_clock", 8, POINTS)]
    assert notes_on(*runs) == [
        "training time is counted anew, as steps times the milliseconds of a step, which were "
        "measured apart: dense 158.1, switch 183"
    ]
