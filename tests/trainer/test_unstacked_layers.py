"""Runs whose steps take the layers apart: their checkpoints have stacks, as all have."""

import jax
import numpy as np
import pytest

from switch_jax.checkpointing.read_only import newest_saved
from switch_jax.config import Config, DataConfig, MeshConfig, OptimizerConfig, RunConfig
from switch_jax.run_folder import RunFolder
from switch_jax.train_step.state import abstract_state
from switch_jax.trainer.train import train
from tests.trainer import tiny_task  # noqa: F401  registers it
from tests.trainer.helpers import tiny_model

DATA = DataConfig("tiny_copy", {"inputs": 32, "targets": 16}, data_streams=2)


def _config(folder, steps, *, scan_layers=False) -> Config:
    """A run with two blocks of layers in the encoder, over the expert axis."""
    model = tiny_model(
        num_embeddings=1152, group_size=32, num_encoder_layers=4, num_decoder_layers=2,
        scan_layers=scan_layers,
    )  # fmt: skip
    run = RunConfig(
        str(folder), train_steps=steps, batch_size=8, checkpoint_period=2, eval_period=2,
        eval_steps=1, num_microbatches=2,
    )  # fmt: skip
    return Config(run, model, DATA, MeshConfig(1, 2, 1), OptimizerConfig(warmup_steps=100))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 4 steps: its folder, and its final state."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(_config(folder, 4))


def test_the_final_state_and_the_checkpoint_have_stacks_of_layers(whole):
    folder, state = whole
    with jax.set_mesh(state.step.sharding.mesh):
        shapes = abstract_state(_config(folder, 4), state.step.sharding.mesh)
    assert jax.tree.map(lambda s: s.shape, state) == jax.tree.map(lambda s: s.shape, shapes)
    saved = newest_saved(RunFolder.at(folder))
    assert saved.step == 4
    wi = saved.shapes["parameters/encoder/blocks/layer_1/feed_forward/wi_0"]
    assert tuple(wi) == (2, 4, 16, 32)


@pytest.mark.slow
def test_a_run_goes_on_with_layers_scanned(whole, tmp_path):
    train(_config(tmp_path, 2))
    scanned = train(_config(tmp_path, 4, scan_layers=True))
    for a, b in zip(jax.tree.leaves(scanned), jax.tree.leaves(whole[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5)
