import pytest

from switch_jax.config import OptimizerConfig
from switch_jax.errors import UserError
from switch_jax.optim.optimizer import make_optimizer


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"lr_schedule": "cosine"},
            r"lr_schedule = 'cosine' is not known; write one of rsqrt",
        ),
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
