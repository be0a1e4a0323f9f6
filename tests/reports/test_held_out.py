import dataclasses

from switch_jax.reports import held_out, summary
from tests.reports.by_hand import run


def test_the_held_out_task_is_one_all_runs_have():
    a, b, none = (run("r", 0, [(100, -4.0)], task=task) for task in ("a", "b", None))
    both = dataclasses.replace(a, evals={"a": a.train, "all": a.train})
    assert held_out.held_out_task([none]) is None
    assert held_out.held_out_task([both, none]) == "all"
    assert held_out.held_out_task([both, a]) == "a"
    assert held_out.held_out_task([a, b]) is None
    assert [held_out.own_task(r, None) for r in (a, b, both, none)] == ["a", "b", "all", None]
    assert held_out.own_task(both, "a") == "a"
    assert held_out.no_task_in_common([a, b], None) == (
        "the runs have no held-out task in common (r: a; r: b), so each has the numbers of its "
        "own, which do not compare"
    )
    assert held_out.no_task_in_common([a, none], "a") is None
    assert held_out.no_task_in_common([none], None) is None


def test_runs_of_different_tasks_have_each_its_own_value_with_its_task():
    a, b, none = (run("r", 0, [(100, -4.0)], task=task) for task in ("a", "b", None))
    rows = dict(summary.final_numbers([a, b, none], None))
    assert rows["Held-out task"] == ["a", "b", ""]
    assert rows["Held-out neg. log perplexity [nats]"] == ["-4.000", "-4.000", "not yet"]
    assert "Held-out task" not in dict(summary.final_numbers([a, none], "a"))
