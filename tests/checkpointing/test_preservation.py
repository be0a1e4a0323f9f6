"""Which checkpoints stay, without Orbax."""

import types

import pytest

from switch_jax.checkpointing.preservation import Metric, NewestAndBest, comparable


@pytest.mark.parametrize(("keep_best", "kept"), [(0, [4]), (1, [1, 4]), (2, [1, 2, 4])])
def test_of_equal_checkpoints_the_earliest_are_the_best(keep_best, kept):
    policy = NewestAndBest(1, keep_best)
    policy.metrics = {1: Metric(5.0), 2: Metric(5.0), 3: Metric(5.0), 4: Metric(1.0)}
    checkpoints = [types.SimpleNamespace(step=step) for step in policy.metrics]
    stays = policy.should_preserve(checkpoints, context=None)
    assert [c.step for c, stay in zip(checkpoints, stays, strict=True) if stay] == kept


@pytest.mark.parametrize(
    ("newer", "expected"),
    [
        ({3: Metric(-3.0, "loss")}, {3: -3.0}),
        ({3: Metric(-3.0, "loss"), 4: Metric(0.2, "accuracy")}, {2: 0.4, 4: 0.2}),
        ({3: Metric(float("nan"), "loss"), 4: Metric(None, "loss"), 5: None}, {2: 0.4}),
    ],
)
def test_numbers_of_something_else_are_not_compared_with_the_newest(newer, expected):
    older = {1: Metric(0.9), 2: Metric(0.4, "accuracy")}
    assert comparable({**newer, **older}) == expected
    assert comparable({2: Metric(None), 3: None}) == {}
