import dataclasses
import functools

import jax
import numpy as np

from switch_jax.model import bind, init_parameters, model_inputs
from switch_jax.train_step.eval_step import make_eval_step
from tests.trainer.helpers import random_batch, tiny_model

LAYERS = {"num_encoder_layers": 1, "num_decoder_layers": 1, "sparse_step": 1}  # of experts


def _eval_step(*args):
    return jax.jit(make_eval_step(*args))


def test_evaluation_uses_its_own_capacity_and_no_noise():
    model = tiny_model(
        dropout_rate=0.3, jitter_noise=0.3, train_expert_capacity_factor=0.25, **LAYERS
    )
    batch = random_batch(8)
    parameters = init_parameters(model, jax.random.key(0))
    all_ids = np.ones(model.num_embeddings, bool)
    sums = _eval_step(model, all_ids)(parameters, batch).targets
    ample = dataclasses.replace(
        model, dropout_rate=0.0, jitter_noise=0.0, train_expert_capacity_factor=9.0
    )
    same = _eval_step(ample, all_ids)(parameters, batch).targets
    np.testing.assert_array_equal(sums.cross_entropy, same.cross_entropy)
    assert float(sums.tokens) == batch["decoder_loss_weights"].sum()


def test_evaluation_counts_the_tokens_without_a_slot():
    """Of the experts that the tokens choose, counted here: groups of 32 have 4 slots per expert."""
    model = tiny_model(eval_expert_capacity_factor=0.5, **LAYERS)
    batch = random_batch(8)
    parameters = init_parameters(model, jax.random.key(0))
    all_ids = np.ones(model.num_embeddings, bool)
    routed = _eval_step(model, all_ids)(parameters, batch).routed

    chosen = bind(model, parameters).choose_experts(**model_inputs(batch))
    dropped = tokens = 0
    for stack in "encoder", "decoder":
        (experts,) = np.asarray(chosen[stack][0])  # of one Switch layer, [B, 1, L]
        real = batch[f"{stack}_segment_ids"] != 0
        groups = zip(experts.reshape(-1, 32), real.reshape(-1, 32), strict=True)
        load = np.array([np.bincount(e[valid], minlength=4) for e, valid in groups])  # [G, E]
        dropped += np.maximum(load - 4, 0).sum()
        tokens += load.sum()
    assert dropped > 0
    np.testing.assert_allclose(routed, (tokens, dropped), rtol=1e-6)

    def of(model):
        parameters = init_parameters(model, jax.random.key(0))
        return _eval_step(model, all_ids)(parameters, batch).routed

    assert of(tiny_model(eval_expert_capacity_factor=4.0, **LAYERS)).dropped == 0
    assert of(tiny_model(num_experts=0)) is None


def test_evaluation_in_microbatches_gives_the_same_sums_with_fewer_logits_at_once():
    model = tiny_model(eval_expert_capacity_factor=0.5, **LAYERS)
    batch = random_batch(8)
    parameters = init_parameters(model, jax.random.key(0))
    is_content = np.arange(model.num_embeddings) % 3 != 0
    whole, parts = (_eval_step(model, is_content, number) for number in (1, 2))
    sums = whole(parameters, batch)
    assert sums.routed.dropped > 0
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6), parts(parameters, batch), sums
    )
    length = batch["decoder_target_tokens"].shape[1]
    logits = f"8x{length}x{model.num_embeddings}xf32"
    texts = [step.lower(parameters, batch).as_text() for step in (whole, parts)]
    assert [logits in text for text in texts] == [True, False]


def test_evaluation_sums_tokens_with_content_by_themselves():
    model = tiny_model()
    batch = random_batch(8)
    parameters = init_parameters(model, jax.random.key(0))
    is_content = np.arange(model.num_embeddings) % 3 != 0
    sums = _eval_step(model, is_content)(parameters, batch)
    # The same with the other tokens' weights at 0.
    chosen = batch["decoder_loss_weights"] * (batch["decoder_target_tokens"] % 3 != 0)
    alone = _eval_step(model, np.ones_like(is_content))(
        parameters, batch | {"decoder_loss_weights": chosen}
    )
    assert 0 < chosen.sum() < batch["decoder_loss_weights"].sum()
    jax.tree.map(np.testing.assert_array_equal, sums.content, alone.targets)
