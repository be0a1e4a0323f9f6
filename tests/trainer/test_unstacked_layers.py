"""Runs whose steps take the layers apart: their checkpoints have stacks, as all have."""

import dataclasses
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from switch_jax.checkpointing.read_only import newest_saved
from switch_jax.config import OptimizerConfig
from switch_jax.data.reading.prefetch import Prefetch
from switch_jax.run_folder import RunFolder
from switch_jax.trainer import train as train_module
from switch_jax.trainer.signals import Stopped
from switch_jax.trainer.train import train
from tests.trainer.helpers import tiny_model
from tests.trainer.tiny_runs import DENSE, IMPATIENT, bits, config_of, records_of

TWO_BLOCKS = dataclasses.replace(DENSE, num_encoder_layers=2)


def _train(folder, steps, model=TWO_BLOCKS, **changes):
    """A run without evaluations."""
    periods = {"log_period": 1, "eval_period": None, "checkpoint_period": 2}
    return train(config_of(folder, steps, (1, 2, 1), model, **periods, **changes))


def _cosine(optimizer):
    return OptimizerConfig(
        optimizer=optimizer, learning_rate=0.01, warmup_steps=1, lr_schedule="cosine",
        gradient_clip_norm=1.0, weight_decay=0.1,
    )  # fmt: skip


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("muon", marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(optimizer, tmp_path, capsys):
    chosen = _cosine(optimizer)
    state = _train(tmp_path, 3, optimizer=chosen)
    whole = bits(state)
    layer = state.parameters["encoder"]["blocks"]["layer_0"]
    saved = newest_saved(RunFolder(tmp_path)).shapes
    wi = saved["parameters/encoder/blocks/layer_0/feed_forward/wi_0"]
    assert layer["feed_forward"]["wi_0"].shape == tuple(wi) == (2, 16, 32)
    shutil.rmtree(tmp_path / "checkpoints" / "3")  # as if it had ended after two steps
    assert bits(_train(tmp_path, 3, optimizer=chosen)) == whole
    assert "continuing from the checkpoint of step 2" in capsys.readouterr().out
    rates = [r["learning_rate"] for r in records_of(tmp_path, "train")]
    np.testing.assert_allclose(rates, [0.01, 0.01, 0.005, 0.005], rtol=1e-6)  # step 3 twice
    assert records_of(tmp_path, "eval") == []


@pytest.mark.slow
def test_a_run_that_goes_on_takes_a_changed_rate(tmp_path):
    chosen = _cosine("adamw")
    state = _train(tmp_path, 3, optimizer=chosen)
    slower = _train(tmp_path, 4, optimizer=dataclasses.replace(chosen, learning_rate=1e-3))
    assert records_of(tmp_path, "train")[-1]["learning_rate"] == pytest.approx(0.25e-3)
    pairs = zip(jax.tree.leaves(slower.parameters), jax.tree.leaves(state.parameters), strict=True)
    assert 0 < max(np.abs(a - b).max() for a, b in pairs) < 1e-3  # at the first rate 2.5e-3


@pytest.mark.slow
def test_a_signal_beside_a_return_to_the_beginning_stops_there(
    tmp_path, at_each_batch, monkeypatch
):
    """The steps 1 and 2 are bad, there is no checkpoint, and SIGTERM came before them."""

    class Stopping(Prefetch):
        def is_ready(self, seconds):
            return True  # else a run that is to stop would not wait for slow data

        def get(self):
            os.kill(os.getpid(), signal.SIGTERM)
            return super().get()

    spoilt = {1, 2}

    def spoil(batch, number):
        if number in spoilt:
            batch["decoder_loss_weights"][:] = np.nan

    at_each_batch(spoil)
    with monkeypatch.context() as patched:
        patched.setattr(train_module, "Prefetch", Stopping)
        with pytest.raises(Stopped, match="no step was done; the same command goes on"):
            _train(tmp_path, 3, guard=IMPATIENT)
    assert [r["back_to"] for r in records_of(tmp_path, "rollback")] == [0]
    assert RunFolder(tmp_path).checkpoint_steps() == [0]
    assert int(_train(tmp_path, 3, guard=IMPATIENT).guard.good) == 3
    batches = [r["batches"] for r in records_of(tmp_path, "train")]
    assert batches[-3:] == [3, 4, 5], "the bad ones are not read again"


@pytest.mark.slow
def test_a_run_goes_on_with_layers_scanned(tmp_path):
    apart = tiny_model(num_embeddings=1152, num_encoder_layers=4, scan_layers=False)
    whole, other = _train(tmp_path / "whole", 4, apart, num_microbatches=2), tmp_path / "other"
    _train(other, 2, apart, num_microbatches=2)
    scanned = dataclasses.replace(apart, scan_layers=True)
    state = _train(other, 4, scanned, num_microbatches=2)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5)
