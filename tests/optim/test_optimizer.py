import numpy as np
import pytest

from switch_jax.config import OptimizerConfig
from switch_jax.errors import UserError
from switch_jax.optim.optimizer import make_optimizer
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "cosine"}, r"schedule = 'cosine' is not known; write one of rsqrt, constant"),
        ({"trained_parameters": "experts"}, r"'experts' is not known; write one of all, expert, n"),
        ({"learning_rate": 0.0}, r"learning_rate = 0.0.*above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        OptimizerConfig(**changes)


def test_a_dense_model_has_no_experts_to_train():
    axes = {"wi": ("layers", "embed", "mlp"), "scale": ("embed",)}
    with pytest.raises(UserError, match=r"= 'expert', but .* dense.*write 'all'"):
        make_optimizer(OptimizerConfig(trained_parameters="expert"), axes)
    make_optimizer(OptimizerConfig(trained_parameters="non_expert"), axes)
