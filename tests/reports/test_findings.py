import dataclasses

from switch_jax.reports.drawing import COLOURS
from tests.reports.by_hand import findings, run


def test_the_held_out_task_is_one_all_runs_have():
    a, b, none = (
        run(name, 0, [(100, -4.0)], task=task) for name, task in zip("abn", "ab.", strict=True)
    )
    none = dataclasses.replace(none, evals={})
    both = dataclasses.replace(a, evals={"a": a.train, "all": a.train})
    assert findings(none).task is None and findings(none).notes == []
    assert findings(both, none).task == "all"
    assert findings(both, a).task == "a" and findings(a, none).notes == []
    assert [findings(a, none).held_out(r) for r in (a, none)] == [a.train, None]
    apart = findings(a, b)
    assert (apart.task, apart.held_out(a)) == (None, None)
    assert apart.notes == ["the runs have no held-out task in common, so they are not compared"]


def test_dense_runs_have_the_first_colours():
    points = [(100, -4.0)]
    found = findings(run("s", 8, points), run("d", 0, points), run("t", 4, points))
    assert found.colours == dict(zip(("d", "s", "t"), COLOURS, strict=False))
    many = findings(*(run(str(i), 8, points) for i in range(9)))
    assert many.colours["7"] == COLOURS[0]
