import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from switch_jax.errors import UserError
from switch_jax.model import bind, init_parameters
from switch_jax.training.loss import LossConfig
from switch_jax.training.state import init_state
from switch_jax.training.step import check_batch, make_eval_step, make_train_step
from tests.training.helpers import random_batch, tiny_model

LOSS = LossConfig(z_loss=1e-2, load_balance=0.1, router_z=0.01)
SGD = optax.sgd(1.0)  # the update is the gradient


def _step(model, batch, parts, seed=0):
    state = init_state(model, SGD, jax.random.key(1))
    step = jax.jit(make_train_step(model, LOSS, SGD, num_microbatches=parts, seed=seed))
    return step(state, batch)


@pytest.mark.parametrize("parts", [2, 4])
def test_microbatches_give_the_gradients_and_metrics_of_the_whole_batch(parts):
    model = tiny_model(jitter=0.0)
    batch = random_batch(16)
    whole, whole_metrics = _step(model, batch, 1)
    split, split_metrics = _step(model, batch, parts)
    assert float(whole_metrics.encoder_router.dropped.max()) > 0, "the case should overflow"
    for a, b in zip(jax.tree.leaves(split), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for a, b in zip(jax.tree.leaves(split_metrics), jax.tree.leaves(whole_metrics), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_loss_and_gradients_are_those_of_the_formula():
    """Cross-entropy and z-loss over real target tokens, plus alpha x the layers' losses, summed."""
    model = tiny_model(num_encoder_layers=4, jitter=0.0)
    batch = random_batch(8)
    parameters = init_state(model, SGD, jax.random.key(1)).parameters

    def loss(parameters):
        out = bind(model, parameters)(
            batch["encoder_tokens"], batch["decoder_input_tokens"],
            batch["encoder_segments"], batch["decoder_segments"],
            deterministic=False, key=jax.random.key(0),
        )  # fmt: skip
        log_z = jax.nn.logsumexp(out.logits, -1)
        picked = jnp.take_along_axis(out.logits, batch["decoder_target_tokens"][..., None], -1)
        real = batch["decoder_segments"] > 0
        value = jnp.where(real, log_z - picked[..., 0] + 1e-2 * log_z**2, 0).sum() / real.sum()
        assert out.encoder.load_balance_loss.shape == (2,)
        for router in (out.encoder, out.decoder):
            value += 0.1 * router.load_balance_loss.sum() + 0.01 * router.z_loss.sum()
        return value

    value, gradients = jax.jit(jax.value_and_grad(loss))(parameters)
    state, metrics = _step(model, batch, 1)
    np.testing.assert_allclose(metrics.loss, value, rtol=1e-6)
    np.testing.assert_allclose(metrics.gradient_norm, optax.tree.norm(gradients), rtol=1e-5)
    moved = jax.tree.map(lambda p, g: p - g, parameters, gradients)
    for a, b in zip(jax.tree.leaves(state.parameters), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_noise_follows_the_step_and_the_seed():
    model = tiny_model(dropout_rate=0.2)
    batch = random_batch(8)
    state, first = _step(model, batch, 1)
    again = _step(model, batch, 1)[1]
    np.testing.assert_array_equal(first.loss, again.loss)
    assert float(first.loss) != float(_step(model, batch, 1, seed=1)[1].loss)
    later = init_state(model, SGD, jax.random.key(1))._replace(step=jnp.int32(5))
    step = jax.jit(make_train_step(model, LOSS, SGD, num_microbatches=1, seed=0))
    assert float(first.loss) != float(step(later, batch)[1].loss)
    assert int(state.step) == 1


def test_a_dense_model_trains_without_router_metrics():
    state, metrics = _step(tiny_model(num_experts=0), random_batch(4), 1)
    assert metrics.encoder_router is None
    assert float(metrics.load_balance_loss) == 0
    assert np.isfinite(metrics.loss)


def test_evaluation_uses_its_own_capacity_and_no_noise():
    model = tiny_model(dropout_rate=0.3, jitter=0.3, train_capacity_factor=0.25)
    batch = random_batch(8)
    parameters = init_parameters(model, jax.random.key(0))
    sums = make_eval_step(model)(parameters, batch)
    ample = dataclasses.replace(model, dropout_rate=0.0, jitter=0.0, train_capacity_factor=9.0)
    np.testing.assert_array_equal(
        sums.cross_entropy, make_eval_step(ample)(parameters, batch).cross_entropy
    )
    assert float(sums.tokens) == batch["decoder_loss_weights"].sum()


@pytest.mark.parametrize(
    ("changes", "batch", "parts", "message"),
    [
        ({}, 12, 1, r"batch size 12 does not divide over data x expert = 8.*12 % 8 = 4.*multiple"),
        ({}, 24, 2, r"batch size 24 .*2 microbatches \(24 % 16 = 8\)"),
        ({"num_experts": 6}, 16, 1, r"6 experts do not divide over the expert axis of 4"),
        ({"group_size": 64}, 16, 1, r"group size 64 does not fit.*GROUP_SIZE to 32"),
        ({"group_size": 10}, 16, 1, r"group size 10 does not fit.*16 % 10 = 6"),
        ({"group_size": 32}, 32, 4, r"group size 32 does not fit: groups take 4 whole rows"),
    ],
)
def test_a_batch_that_does_not_divide_is_refused_with_the_numbers(changes, batch, parts, message):
    mesh = {"data": 2, "expert": 4, "model": 1}
    with pytest.raises(UserError, match=message):
        check_batch(tiny_model(**changes), batch, (16, 8), parts, mesh)
