"""Runs whose steps take the layers apart: their checkpoints have stacks, as all have."""

import jax
import numpy as np
import pytest

from switch_jax.checkpointing.read_only import newest_saved
from switch_jax.run_folder import RunFolder
from switch_jax.trainer.train import train
from tests.trainer.helpers import tiny_model
from tests.trainer.tiny_runs import config_of


def _train(folder, steps, *, scan_layers=False):
    """A run with two blocks of layers in the encoder, over the expert axis."""
    model = tiny_model(
        num_embeddings=1152, group_size=32, num_encoder_layers=4, scan_layers=scan_layers
    )
    periods = {"checkpoint_period": 2, "eval_period": 2, "eval_steps": 1, "num_microbatches": 2}
    return train(config_of(folder, steps, (1, 2, 1), model, **periods))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 4 steps: its folder, and its final state."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, _train(folder, 4)


def test_the_final_state_and_the_checkpoint_have_stacks_of_layers(whole):
    folder, state = whole
    layer = state.parameters["encoder"]["blocks"]["layer_1"]
    saved = newest_saved(RunFolder.at(folder))
    assert saved.step == 4
    wi = saved.shapes["parameters/encoder/blocks/layer_1/feed_forward/wi_0"]
    assert layer["feed_forward"]["wi_0"].shape == tuple(wi) == (2, 4, 16, 32)


@pytest.mark.slow
def test_a_run_goes_on_with_layers_scanned(whole, tmp_path):
    _train(tmp_path, 2)
    scanned = _train(tmp_path, 4, scan_layers=True)
    for a, b in zip(jax.tree.leaves(scanned), jax.tree.leaves(whole[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5)
