import dataclasses

import numpy as np

from switch_jax.reports.configurations import group_runs
from switch_jax.reports.downstream import Downstream
from switch_jax.reports.findings import Findings
from tests.reports.by_hand import run, seed

POINTS = [(100, -6.0), (200, -5.0)]


def notes_on(*runs):
    nothing = [None] * len(runs)
    scores = Downstream([{}] * len(runs), nothing, nothing)
    return Findings(group_runs(runs), "t", [], scores, None).notes


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
