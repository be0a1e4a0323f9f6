import pytest

from switch_jax.config import OptimizerConfig
from switch_jax.config.optimizer import SCHEDULES
from switch_jax.config.rates import rate_problem
from switch_jax.optim.schedules import learning_rate_schedule
from tests.trainer.helpers import tiny_config, tiny_model


def _config(start=None, **optimizer):
    config = tiny_config(tiny_model(), optimizer=OptimizerConfig(**optimizer))
    return config.replace("run", train_steps=40, initial_checkpoint_path=start)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_peak_is_the_highest_rate_of_the_schedule(schedule):
    config = _config(learning_rate=0.6, warmup_steps=9, lr_schedule=schedule)
    highest = max(float(learning_rate_schedule(config)(step)) for step in range(40))
    assert config.optimizer.peak_learning_rate == pytest.approx(highest)


@pytest.mark.parametrize(
    ("optimizer", "schedule", "rate", "peak"),
    [
        ("adafactor", "rsqrt", 1.0, None),  # 0.01 after 10,000 steps
        ("adafactor", "rsqrt", 0.01, "0.0001"),
        ("adafactor", "linear", 1.0, "1"),
        ("adamw_rms", "cosine", 0.02, None),
        ("adamw_rms", "wsd", 0.6, "0.6"),
        ("adamw", "warmup_rsqrt", 1.0, None),  # 0.01 again
        ("adamw", "warmup_rsqrt", 1e-3, "1e-05"),
        ("adamw", "constant", 1.0, "1"),
        ("muon", "cosine", 1e-3, None),
        ("muon", "cosine", 0.2, "0.2"),
    ],
)
def test_a_rate_is_far_from_those_of_its_optimizer(optimizer, schedule, rate, peak):
    problem = rate_problem(
        _config(optimizer=optimizer, lr_schedule=schedule, learning_rate=rate)
        if schedule.endswith("rsqrt")
        else _config(optimizer=optimizer, lr_schedule=schedule, learning_rate=rate, warmup_steps=9)
    )
    if peak is None:
        assert problem is None
    else:
        assert f"the learning rate is {peak} at its peak" in problem
        assert f"add --gin_file=runs/{optimizer}.gin after" in problem


def test_the_steps_of_warm_up_are_named_where_the_rate_follows_from_them():
    problem = rate_problem(_config(optimizer="muon", learning_rate=1e-3))
    assert "(LR_SCHEDULE = 'rsqrt' with LEARNING_RATE = 0.001 and WARMUP_STEPS = 10,000)" in problem


def test_fine_tuning_may_have_a_low_rate_and_no_high_one():
    low = {"optimizer": "adamw", "lr_schedule": "constant", "learning_rate": 1e-5}
    assert rate_problem(_config(**low)) and not rate_problem(_config("pretrained", **low))
    assert rate_problem(_config("pretrained", **low | {"learning_rate": 0.3}))
