"""Runs with each optimiser: resumed as if never stopped."""

import json
import shutil

import numpy as np
import pytest

from switch_jax.config import OptimizerConfig
from switch_jax.trainer.train import train
from tests.trainer.tiny_runs import bits, config_of


def _train(folder, optimizer):
    chosen = OptimizerConfig(
        optimizer=optimizer, learning_rate=0.01, warmup_steps=1, lr_schedule="cosine",
        gradient_clip_norm=1.0, weight_decay=0.1,
    )  # fmt: skip
    periods = {"log_period": 1, "eval_period": None, "checkpoint_period": 2}
    return train(config_of(folder, 3, (1, 2, 1), optimizer=chosen, **periods))


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("muon", marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(optimizer, tmp_path, capsys):
    whole = bits(_train(tmp_path, optimizer))
    shutil.rmtree(tmp_path / "checkpoints" / "3")  # as if it had ended after two steps
    assert bits(_train(tmp_path, optimizer)) == whole
    assert "continuing from the checkpoint of step 2" in capsys.readouterr().out
    records = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    rates = [r["learning_rate"] for r in records if r["kind"] == "train"]
    np.testing.assert_allclose(rates, [0.01, 0.01, 0.005, 0.005], rtol=1e-6)  # step 3 twice
