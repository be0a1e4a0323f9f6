"""What the host says of bad steps, and when it goes back."""

from pathlib import Path

import pytest

from switch_jax.config import GuardConfig
from switch_jax.run_folder import RunFolder
from switch_jax.trainer.bad_steps import BadSteps
from switch_jax.utils.errors import UserError


def test_the_run_goes_back_so_often_and_a_good_checkpoint_begins_the_count_anew():
    bad = BadSteps(GuardConfig(max_bad_steps=3, max_rollbacks=2), RunFolder(Path("folder")))
    bad.in_a_row = 2
    assert not bad.too_many() and not bad.may_save()
    for _ in range(2):
        bad.in_a_row = 3
        assert bad.too_many()
        bad.check_may_go_back(7)
        bad.went_back()
        assert not bad.too_many() and bad.may_save()
    bad.in_a_row = 1
    bad.saved()  # by a signal, say
    with pytest.raises(
        UserError, match="^1 bad steps in a row, up to step 7, after 2 returns.*higher SPIKE_SIGMAS"
    ):
        bad.check_may_go_back(7)
    bad.in_a_row = 0
    bad.saved()
    bad.check_may_go_back(7)


def test_many_steps_without_a_gradient_are_said_once():
    bad = BadSteps(GuardConfig(), RunFolder(Path("folder")))
    norms = [1.0, *[0.0] * 9, 1e-30, *[0.0] * 25, 1.0, *[0.0] * 25]
    said = {step: text for step, norm in enumerate(norms, 1) if (text := bad.warning(step, norm))}
    assert list(said) == [21]  # the tenth of those from step 12 on
    assert said[21].startswith(
        "warning: the gradient norm of 10 good steps in a row, up to step 21"
    )
