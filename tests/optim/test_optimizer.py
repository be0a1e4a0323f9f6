import pytest

from switch_jax.config import OptimizerConfig
from switch_jax.errors import UserError
from switch_jax.optim.optimizer import make_optimizer
from tests.trainer.helpers import tiny_config, tiny_model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"optimizer": "adam"},
            r"optimizer = 'adam' is not known; write one of adafactor, adamw",
        ),
        ({"lr_schedule": "step"}, r"lr_schedule = 'step' is not known; write one of rsqrt, warmup"),
        ({"trained_parameters": "experts"}, r"'experts' is not known; write one of all, expert, n"),
        ({"learning_rate": 0.0}, r"learning_rate = 0.0.*above 0"),
        ({"gradient_clip_norm": 0.0}, r"gradient_clip_norm = 0.0: it must be above 0, or None"),
        ({"adam_b2": 1.0, "optimizer": "adamw"}, r"adam_b2 = 1.0: it must be below 1"),
        (
            {"weight_decay": 0.1},
            r"weight_decay = 0.1 is of no use with OPTIMIZER = 'adafactor': leave it at 0.0, or "
            r"set OPTIMIZER to adamw or adamw_rms or muon",
        ),
        ({"adam_b1": 0.95}, r"adam_b1 = 0.95 is of no use .* leave it at 0.9"),
        ({"min_dim_size_to_factor": 64, "optimizer": "muon"}, r"set OPTIMIZER to adafactor$"),
        ({"final_lr_fraction": 0.1}, r"no use with LR_SCHEDULE = 'rsqrt': .* cosine or linear or"),
        (
            {"decay_steps": 9, "lr_schedule": "linear"},
            r"leave it at None, or set LR_SCHEDULE to w",
        ),
        ({"final_lr_fraction": 1.1, "lr_schedule": "wsd"}, r"1.1: it must be at most 1"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        OptimizerConfig(**changes)


@pytest.mark.parametrize("optimizer", ["adafactor", "muon"])
def test_a_dense_model_has_no_experts_to_train(optimizer):
    def make(trained):
        chosen = OptimizerConfig(optimizer=optimizer, trained_parameters=trained)
        return make_optimizer(tiny_config(tiny_model(num_experts=0), optimizer=chosen))

    with pytest.raises(UserError, match=r"= 'expert', but .* dense.*write 'all'"):
        make("expert")
    make("non_expert")
