"""Token by token with a cache, against the whole sequence at once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.config import MeshConfig
from switch_jax.model import bind, init_parameters
from switch_jax.partitioning.mesh import make_mesh
from tests.trainer.helpers import by_stack, tiny_model

B, M, L = 8, 5, 5
# Gated experts in the feed-forward layer and in the self-attention of the decoder's first layer,
# chosen with biases: it has two kinds of blocks. There is room for all tokens: decoding drops none.
# Smaller weights than by default, as products of them multiply what is rounded.
BOTH = tiny_model(
    num_encoder_layers=1, num_decoder_layers=3, activation="gated-gelu", expert_sublayers="both",
    num_encoder_sparse_layers=0, num_decoder_sparse_layers=1, decoder_sparse_layout="bottom",
    group_size=L, eval_expert_capacity_factor=4.0, load_balance="bias", scale=0.5,
    relative_position_max_distance=6, relative_position_buckets=8,
)  # fmt: skip
# Two experts a token and a shared one, in every other layer.
TWO_EXPERTS = dataclasses.replace(
    BOTH, expert_sublayers="feed_forward", num_selected_experts=2, second_expert_policy="random",
    shared_expert_mlp_dim=16, num_decoder_layers=4, num_decoder_sparse_layers=2,
    decoder_sparse_layout="mixed", scale=1.0,
)  # fmt: skip
# Rotary positions, grouped queries, norms of heads, and two gated experts whose gates are kept.
TODAY = dataclasses.replace(
    BOTH, positions="rotary", rotary_base=20.0, relative_position_buckets=32,
    relative_position_max_distance=128, num_heads=4, num_key_value_heads=2, qk_norm=True,
    activation="swiglu", num_selected_experts=2, normalize_gates=False, tie_embeddings=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    targets = rng.integers(1, 64, (B, L))
    return {
        "tokens": rng.integers(1, 64, (B, M)),
        "segments": (np.arange(M) < rng.integers(2, M + 1, (B, 1))).astype(np.int32),
        "inputs": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
    }


def parameters(model):
    """Larger than they begin, so that everything matters; biases are 0 then."""

    def larger(x):
        return jnp.where(x.any(), 1.5 * x, 0.3 * jnp.cos(jnp.arange(x.size).reshape(x.shape)))

    return jax.tree.map(larger, init_parameters(model, jax.random.key(0)))


def at_once(model, parameters, batch):
    ones = jnp.ones((B, L), jnp.int32)
    tokens = by_stack(batch["tokens"], batch["inputs"])
    return bind(model, parameters)(tokens, by_stack(batch["segments"], ones)).logits


def step_by_step(model, parameters, batch):
    """Each row as two beams, of which the second has the words of the row before."""
    transformer = bind(model, parameters)
    tokens, segments = {"encoder": batch["tokens"]}, {"encoder": batch["segments"]}
    decoding = transformer.init_decoding(tokens, segments, beams=2, length=L)

    def step(decoding, position_and_words):
        position, words = position_and_words
        tokens, valid = jnp.stack([words, jnp.roll(words, 1)], axis=1), jnp.ones((B, 2), bool)
        logits, decoding = transformer.decode_step(tokens, valid, position, decoding)
        return decoding, logits

    _, logits = jax.lax.scan(step, decoding, (jnp.arange(L), batch["inputs"].T))
    return jnp.moveaxis(logits, 0, 2)  # [B, beams, L, V]


@pytest.mark.parametrize(
    "model",
    [BOTH, TODAY, pytest.param(TWO_EXPERTS, marks=pytest.mark.slow)],
    ids=["both", "today", "two"],
)
def test_the_same_logits_as_at_once(model, batch):
    """Step by step on eight devices, and at once on one."""
    arrays = jax.device_get(parameters(model))
    whole = jax.jit(functools.partial(at_once, model))
    expected = whole(arrays, batch)
    expected_of_second = whole(arrays, {**batch, "inputs": np.roll(batch["inputs"], 1, axis=0)})
    assert np.abs(expected).max() > 2
    with jax.set_mesh(make_mesh(MeshConfig(2, 2, 2))):
        stepped = jax.jit(functools.partial(step_by_step, model))
        found = jax.device_get(stepped(arrays, batch))
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-4)
    np.testing.assert_allclose(found[:, 1], expected_of_second, atol=1e-4)
