"""Runs with each optimiser: resumed as if never stopped, and not mixed up."""

import json
import shutil

import jax
import numpy as np
import pytest

from switch_jax.config import Config, MeshConfig, OptimizerConfig, RunConfig
from switch_jax.errors import UserError
from switch_jax.trainer.train import train
from tests.trainer.tiny_runs import DATA, MODEL


def _train(folder, optimizer, start=None, steps=3):
    run = RunConfig(
        str(folder), steps, batch_size=8, initial_checkpoint_path=start and str(start),
        log_period=1, eval_period=100, eval_steps=1, checkpoint_period=2,
    )  # fmt: skip
    decay = {} if optimizer == "adafactor" else {"weight_decay": 0.1}
    chosen = OptimizerConfig(
        optimizer=optimizer, learning_rate=0.01, warmup_steps=1, lr_schedule="cosine",
        gradient_clip_norm=1.0, **decay,
    )  # fmt: skip
    return train(Config(run, MODEL, DATA, MeshConfig(1, 2, 1), chosen))


def _bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize(
    "optimizer",
    [pytest.param("adamw", marks=pytest.mark.slow), "muon"],
)
def test_a_stopped_run_goes_on_as_if_it_had_not_been(optimizer, tmp_path, capsys):
    whole = _bits(jax.device_get(_train(tmp_path, optimizer)))
    shutil.rmtree(tmp_path / "checkpoints" / "3")  # as if it had ended after two steps
    assert _bits(jax.device_get(_train(tmp_path, optimizer))) == whole
    assert "continuing from the checkpoint of step 2" in capsys.readouterr().out
    records = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    rates = [r["learning_rate"] for r in records if r["kind"] == "train"]
    np.testing.assert_allclose(rates, [0.01, 0.01, 0.005, 0.005], rtol=1e-6)  # step 3 twice


def test_another_optimiser_does_not_go_on_but_starts_from_the_parameters(tmp_path):
    first = _train(tmp_path / "first", "adafactor", steps=2)
    message = (
        r"checkpoint of step 2 .* is of another model: .*OptimizerConfig.optimizer 'adafactor' -> "
        r"'adamw'.*\): write the values of that run, or another MODEL_DIR for a new one"
    )
    with pytest.raises(UserError, match=message):
        _train(tmp_path / "first", "adamw")
    second = _train(tmp_path / "second", "adamw", tmp_path / "first", steps=2)
    assert _bits(second.parameters) != _bits(first.parameters)
    with pytest.raises(UserError, match=r"OptimizerConfig.optimizer 'adamw' -> 'muon'"):
        _train(tmp_path / "second", "muon")
