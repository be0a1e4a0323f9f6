import functools

import jax
import numpy as np
import pytest

from switch_jax.model import bind, init_parameters, model_inputs
from switch_jax.train_step.eval_step import make_eval_step
from tests.trainer.helpers import random_batch, tiny_model

# Noise and a capacity that are of training alone; groups of two rows in each stack.
MODEL = tiny_model(
    num_encoder_layers=1, num_decoder_layers=1, sparse_step=1, decoder_group_size=16,
    dropout_rate=0.3, jitter_noise=0.3, train_expert_capacity_factor=9.0,
    eval_expert_capacity_factor=0.5,
)  # fmt: skip
IS_CONTENT = np.arange(MODEL.num_embeddings) % 3 != 0
BATCH = random_batch(8)


@pytest.fixture(scope="module")
def parameters():
    return jax.jit(init_parameters, static_argnums=0)(MODEL, jax.random.key(0))


@pytest.fixture(scope="module")
def step():
    return jax.jit(make_eval_step(MODEL, IS_CONTENT))


def test_tokens_without_a_slot_are_counted_with_evaluations_capacity_and_no_noise(step, parameters):
    """Of the experts that the tokens choose, counted here."""
    sums = step(parameters, BATCH)
    inputs = model_inputs(MODEL, BATCH)
    output = jax.jit(lambda p: bind(MODEL, p)(*inputs, with_choices=True))(parameters)
    dropped = tokens = 0
    # The tokens of a group, and the slots of each of the four experts.
    for stack, group, slots in ("encoder", 32, 4), ("decoder", 16, 2):
        (experts,) = np.asarray(output.choices[stack].experts)  # of one Switch layer, [B, 1, L]
        real = BATCH[f"{stack}_segment_ids"] != 0
        groups = zip(experts.reshape(-1, group), real.reshape(-1, group), strict=True)
        load = np.array([np.bincount(e[valid], minlength=4) for e, valid in groups])  # [G, E]
        dropped += np.maximum(load - slots, 0).sum()
        tokens += load.sum()
    assert dropped > 0
    np.testing.assert_allclose(sums.routed, (tokens, dropped), rtol=1e-6)
    assert float(sums.targets.tokens) == BATCH["decoder_loss_weights"].sum()


def test_a_dense_model_routes_no_tokens(parameters):
    dense = tiny_model(num_experts=0)
    shapes = jax.eval_shape(lambda: init_parameters(dense, jax.random.key(0)))
    assert jax.eval_shape(make_eval_step(dense, IS_CONTENT), shapes, BATCH).routed is None


def test_evaluation_in_microbatches_gives_the_same_sums_with_fewer_logits_at_once(step, parameters):
    sums = step(parameters, BATCH)
    parts = jax.jit(make_eval_step(MODEL, IS_CONTENT, 2))
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6), parts(parameters, BATCH), sums
    )
    length = BATCH["decoder_target_tokens"].shape[1]
    logits = f"8x{length}x{MODEL.num_embeddings}xf32"
    texts = [each.lower(parameters, BATCH).as_text() for each in (step, parts)]
    assert [logits in text for text in texts] == [True, False]


def test_evaluation_sums_tokens_with_content_by_themselves(step, parameters):
    """As where the other tokens have the weight 0."""
    chosen = BATCH["decoder_loss_weights"] * (BATCH["decoder_target_tokens"] % 3 != 0)
    assert 0 < chosen.sum() < BATCH["decoder_loss_weights"].sum()
    alone = step(parameters, BATCH | {"decoder_loss_weights": chosen})
    sums = step(parameters, BATCH)
    jax.tree.map(np.testing.assert_array_equal, sums.content, alone.targets)
