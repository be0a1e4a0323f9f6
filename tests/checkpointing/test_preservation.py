"""Which checkpoints stay, without Orbax."""

import types

import pytest

from switch_jax.checkpointing.preservation import NewestAndBest


@pytest.mark.parametrize(("keep_best", "kept"), [(0, [4]), (1, [1, 4]), (2, [1, 2, 4])])
def test_of_equal_checkpoints_the_earliest_are_the_best(keep_best, kept):
    policy = NewestAndBest(1, keep_best)
    policy.metrics = {1: 5.0, 2: 5.0, 3: 5.0, 4: 1.0}
    checkpoints = [types.SimpleNamespace(step=step) for step in policy.metrics]
    stays = policy.should_preserve(checkpoints, context=None)
    assert [c.step for c, stay in zip(checkpoints, stays, strict=True) if stay] == kept
