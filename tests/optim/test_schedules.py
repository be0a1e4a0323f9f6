import numpy as np
import pytest

from switch_jax.config import OptimizerConfig
from switch_jax.optim.schedules import learning_rate_schedule
from switch_jax.utils.errors import UserError
from tests.trainer.helpers import tiny_config, tiny_model


def _rates(steps, train_steps=10, **changes):
    config = tiny_config(tiny_model(), optimizer=OptimizerConfig(**changes))
    schedule = learning_rate_schedule(config.replace("run", train_steps=train_steps))
    return [float(schedule(step)) for step in steps]


@pytest.mark.parametrize(
    ("changes", "rates"),
    [
        # Constant, then the inverse square root.
        ({}, {0: 0.01, 9_999: 0.01, 10_000: 0.01, 40_000: 0.005, 10**6: 0.001}),
        # A linear rise to the same.
        (
            {"lr_schedule": "warmup_rsqrt"},
            {0: 1e-6, 4_999: 0.005, 9_999: 0.01, 10_000: 0.01, 40_000: 0.005, 10**6: 0.001},
        ),
        (
            {"lr_schedule": "constant", "learning_rate": 1e-3, "warmup_steps": 500},
            {0: 2e-6, 249: 5e-4, 499: 1e-3, 500: 1e-3, 10**6: 1e-3},
        ),
    ],
)
def test_schedules_without_an_end(changes, rates):
    np.testing.assert_allclose(_rates(rates, **changes), list(rates.values()), rtol=1e-6)


RISE = [0.25, 0.5, 0.75, 1.0]  # four steps of warm-up


@pytest.mark.parametrize(
    ("changes", "rates"),
    [
        ({"lr_schedule": "linear"}, [*RISE, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]),
        # Half a cosine at 0, 45, 90, 135 and 180 degrees.
        ({"lr_schedule": "cosine"}, [*RISE, 1.0, 0.8535534, 0.5, 0.1464466, 0.0, 0.0]),
        (
            {"lr_schedule": "cosine", "final_lr_fraction": 0.5},
            [*RISE, 1.0, 0.9267767, 0.75, 0.5732233, 0.5, 0.5],
        ),
        ({"lr_schedule": "wsd", "decay_steps": 2}, [*RISE, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0]),
        (
            {"lr_schedule": "wsd", "decay_steps": 4, "final_lr_fraction": 0.2},
            [*RISE, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2],
        ),
    ],
)
def test_schedules_that_end_with_the_run(changes, rates):
    """Of 8 updates; the rate after them is that at which the run would go on."""
    found = _rates(range(10), 8, learning_rate=3.0, warmup_steps=4, **changes)
    np.testing.assert_allclose(found, 3.0 * np.array(rates), rtol=1e-6, atol=1e-7)


def test_wsd_decays_over_a_tenth_of_the_run_by_itself():
    rates = _rates([899, 900, 950, 1000], 1000, warmup_steps=4, lr_schedule="wsd")
    np.testing.assert_allclose(rates, [1.0, 1.0, 0.5, 0.0], rtol=1e-6)
    assert _rates([4, 5], 5, warmup_steps=4, lr_schedule="wsd") == [1.0, 0.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr_schedule": "cosine"}, "'cosine' has 8 steps of warm-up and 1 of decay, more"),
        ({"lr_schedule": "wsd", "decay_steps": 5}, "'wsd' has 8 .* and 5 of decay, more"),
    ],
)
def test_a_run_that_is_too_short_for_its_schedule_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        _rates([0], 8, warmup_steps=8, **changes)
