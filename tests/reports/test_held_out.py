import dataclasses

import pytest

from switch_jax.errors import UserError
from switch_jax.reports import held_out
from tests.reports.by_hand import run


def test_the_held_out_task_is_one_all_runs_have():
    a, b, none = (run("r", 0, [(100, -4.0)], task=task) for task in ("a", "b", None))
    both = dataclasses.replace(a, evals={"a": a.train, "all": a.train})
    assert held_out.held_out_task([none]) is None
    assert held_out.held_out_task([both, none]) == "all"
    assert held_out.held_out_task([both, a]) == "a"
    with pytest.raises(UserError, match="no held-out task in common"):
        held_out.held_out_task([a, b])
    tuned = run("r", 0, [(100, -4.0)], task="c", initial_checkpoint="/run/checkpoints/4")
    assert held_out.held_out_task([a, tuned]) is None
    assert held_out.empty_rows([a, tuned], None) == (
        "the runs have no held-out task in common (r: a; r: c), so the rows of held-out numbers "
        "are empty"
    )
    assert held_out.empty_rows([a, none], "a") is None
    assert held_out.empty_rows([none], None) is None
