import numpy as np
import pytest

from switch_jax.config import OptimizerConfig
from switch_jax.optim.schedules import learning_rate_schedule


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0.01), (9_999, 0.01), (10_000, 0.01), (40_000, 0.005), (10**6, 0.001)]
)
def test_rsqrt_is_constant_then_inverse_square_root(step, rate):
    np.testing.assert_allclose(learning_rate_schedule(OptimizerConfig())(step), rate, rtol=1e-6)


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 2e-6), (249, 5e-4), (499, 1e-3), (500, 1e-3), (10**6, 1e-3)]
)
def test_constant_rises_linearly_and_stays(step, rate):
    config = OptimizerConfig(learning_rate=1e-3, warmup_steps=500, lr_schedule="constant")
    np.testing.assert_allclose(learning_rate_schedule(config)(step), rate, rtol=1e-6)


def test_constant_without_warm_up():
    config = OptimizerConfig(learning_rate=1e-3, warmup_steps=1, lr_schedule="constant")
    np.testing.assert_allclose([learning_rate_schedule(config)(i) for i in (0, 1)], 1e-3, rtol=1e-6)
