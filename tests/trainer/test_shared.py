"""Tests share a program only where all that it was made from is equal."""

from tests.trainer.helpers import tiny_config, tiny_model
from tests.trainer.shared import Shared

CONFIG = tiny_config(tiny_model())


def test_a_result_is_shared_until_something_that_was_read_differs():
    shared, calls = Shared(), []

    def made(config, shape):
        calls.append(config)
        rate = config.loss.z_loss and config.optimizer.learning_rate  # only where it is not 0
        return rate, config.data.lengths, shape

    def get(config, shape=1):
        return shared.get(made, config, shape, key=shape)

    assert get(CONFIG) == (1.0, (16, 8), 1)
    others = [
        ("run", {"log_period": 7}),
        ("loss", {"aux_loss_factor": 0.5}),
        ("data", {"pack": False}),
    ]
    for part, unread in others:
        assert get(CONFIG.replace(part, **unread)) == (1.0, (16, 8), 1)
    assert len(calls) == 1
    assert get(CONFIG, 2) == (1.0, (16, 8), 2)
    assert get(CONFIG.replace("optimizer", learning_rate=0.5)) == (0.5, (16, 8), 1)
    get(CONFIG.replace("model", embed_dim=8)), get(CONFIG.replace("mesh", model=2))
    assert len(calls) == 5
    without = CONFIG.replace("loss", z_loss=0.0)
    assert get(without) == get(without.replace("optimizer", learning_rate=0.5)) == (0, (16, 8), 1)
    assert len(calls) == 6
