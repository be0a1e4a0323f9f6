"""Each optimiser updates layers that are apart as it does their stacks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.config import OptimizerConfig
from switch_jax.model import init_parameters
from switch_jax.optim.optimizer import make_optimizer
from switch_jax.train_step.state import fresh_state, state_of_step
from tests.trainer.helpers import tiny_config, tiny_model

# Matrices of the first size are factored.
MODEL = tiny_model(
    num_encoder_layers=2, num_decoder_layers=1, sparse_step=1, scan_layers=False,
    load_balance="bias",
)  # fmt: skip


def copied(state):
    """With memory of its own: `state_of_step` deletes what it is given."""
    return jax.tree.map(jnp.copy, state)


@pytest.mark.parametrize("optimizer", ["adafactor", "muon"])  # Muon has AdamW in it
def test_an_update_of_layers_is_that_of_their_stacks(optimizer):
    """Of the encoder; the decoder is not trained."""
    factored = {"min_dim_size_to_factor": 16} if optimizer == "adafactor" else {}
    chosen = OptimizerConfig(
        optimizer=optimizer, trained_parameters="encoder/.*", gradient_clip_norm=1.0,
        learning_rate_factors=[(".*/router", 0.5)], **factored,
    )  # fmt: skip
    config = tiny_config(MODEL, optimizer=chosen)
    made = make_optimizer(config)
    drawn = jax.jit(init_parameters, static_argnums=0)(MODEL, jax.random.key(0))
    stacked = fresh_state(config, made, drawn)
    apart = state_of_step(config, copied(stacked))
    step = jax.jit(made.step)
    for seed, skip in enumerate((False, True, False)):
        rng = np.random.default_rng(seed)
        gradients = jax.tree.map(
            lambda p, rng=rng: jnp.asarray(rng.normal(size=p.shape), jnp.float32),
            stacked.parameters,
        )
        of_layers = state_of_step(config, copied(stacked._replace(parameters=gradients))).parameters
        expected, state = step(gradients, stacked.optimizer, stacked.parameters, skip)
        found, apart_state = step(of_layers, apart.optimizer, apart.parameters, skip)
        stacked = stacked._replace(parameters=expected.parameter, optimizer=state)
        apart = apart._replace(parameters=found.parameter, optimizer=apart_state)
    whole = apart.stacked()
    assert jax.tree.structure(whole) == jax.tree.structure(stacked)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(whole), jax.tree.leaves(stacked), strict=True
    ):
        # Muon's matrices are orthogonalised in several products, whose rounding differs.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=jax.tree_util.keystr(path))
    for sums in ("square_sum", "update_square_sum"):
        total, of_stacks = (
            sum(map(float, jax.tree.leaves(getattr(u, sums)))) for u in (found, expected)
        )
        np.testing.assert_allclose(total, of_stacks, rtol=1e-5)
