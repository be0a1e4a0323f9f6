"""Gradients that sum over all tokens, against float64: 64k tokens, ids as frequent as in text.

Activations and their gradients are bfloat16, and so are the terms; the sums must not be. Each
reference sums the very same bfloat16 terms.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from switch_jax.model.dot_product_attention import bias_by_pair
from switch_jax.model.layers import Embedding, RMSNorm
from switch_jax.moe import assign, router_logits
from switch_jax.moe.dispatch import combine, dispatch_indices
from tests.trainer.helpers import tiny_model

ROWS, LENGTH, D, V = 128, 512, 8, 500
CONFIG = tiny_model(num_embeddings=V, embed_dim=D, activation_dtype="bfloat16")
RNG = np.random.default_rng(0)


def _bfloat16(*shape, mean=0.0):
    """Random numbers that bfloat16 holds; a mean makes a sum that grows with every term."""
    return jnp.asarray(RNG.normal(mean, 1.0, shape), jnp.bfloat16)


def _wide(x):
    return np.asarray(x, np.float64)


def _close(got, expected):
    """Each number to 1e-5 of the largest in its row."""
    got, expected = _wide(got), _wide(expected)
    error = np.abs(got - expected).max(-1) / np.abs(expected).max(-1).clip(1e-12)
    assert error.max() < 1e-5, error


def test_embedding():
    """Token 1 is a tenth of all: in bfloat16 its row would be wrong by more than a half."""
    frequency = 1 / np.arange(1, V + 1)  # Zipf
    ids = RNG.choice(V, (ROWS, LENGTH), p=frequency / frequency.sum())
    assert (ids == 0).sum() > 6000
    terms = _bfloat16(ROWS, LENGTH, D, mean=0.2)
    expected = np.zeros((V, D))
    np.add.at(expected, ids, _wide(terms))

    def weighted(table):
        embedding = Embedding(CONFIG, nnx.Rngs(0))
        embedding.embedding[...] = table
        (rows,) = embedding(ids)
        return jnp.sum(rows.astype(jnp.float32) * terms)

    _close(jax.grad(weighted)(jnp.zeros((V, D))), expected)


def test_scale_of_a_norm():
    x, terms = _bfloat16(ROWS, LENGTH, D, mean=0.5), _bfloat16(ROWS, LENGTH, D, mean=0.5)

    def weighted(scale):
        norm = RMSNorm(CONFIG)
        norm.scale[...] = scale
        return jnp.sum(norm(x).astype(jnp.float32) * terms)

    wide = _wide(x)
    normalised = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-6)
    _close(jax.grad(weighted)(jnp.ones(D)), (normalised * _wide(terms)).sum((0, 1)))


def test_relative_position_bias():
    """Its sums are along the diagonals of the scores and over the rows of the batch."""
    width, length = 128, 100
    terms = RNG.normal(0.2, 1.0, (64, 2, length, length)).astype(np.float32)
    gradient = jax.grad(lambda bias: jnp.sum(bias_by_pair(bias, length, length)[None] * terms))
    expected = np.zeros((2, 2 * width))
    for distance in range(1 - length, length):
        diagonals = np.trace(_wide(terms), -distance, axis1=2, axis2=3)  # [B, H]
        expected[:, width + distance] = diagonals.sum(0)
    _close(gradient(jnp.zeros((2, 2 * width))), expected)


def test_router():
    x, terms = _bfloat16(ROWS, LENGTH, D, mean=0.2), RNG.normal(0.2, 1.0, (ROWS, LENGTH, 4))
    gradient = jax.grad(lambda router: jnp.sum(router_logits(x, router) * terms))
    expected = np.einsum("bld,ble->de", _wide(x), terms)
    _close(gradient(jnp.zeros((D, 4))), expected)


def test_gate():
    """A gate's gradient is a sum over the features of its token: 4096 here."""
    rows, dim = 4, 4096
    logits = jnp.asarray(RNG.normal(size=(1, rows, 2)), jnp.float32)
    maps = jax.jit(lambda logits: dispatch_indices(assign(logits, rows), (1, rows)))(logits)
    slots, terms = _bfloat16(2 * rows, dim, mean=0.5), _bfloat16(1, rows, dim, mean=0.5)

    def weighted(gate):
        return jnp.sum(combine((slots,), (gate,), maps).astype(jnp.float32) * terms)

    fetched = _wide(slots)[np.asarray(maps.slots_of_token[0])[0]]
    expected = (fetched * _wide(terms)[0]).sum(-1)
    _close(jax.jit(jax.grad(weighted))(jnp.ones((1, rows))), expected[None])


def test_router_statistics():
    """Load and importance of 64k tokens."""
    x = _bfloat16(ROWS, LENGTH, D)
    router = RNG.normal(size=(D, 4)).astype(np.float32)
    logits = router_logits(x, jnp.asarray(router))
    got = jax.jit(assign, static_argnums=1)(logits.reshape(1, ROWS * LENGTH, 4), 8)
    wide = np.exp(_wide(x).reshape(-1, D) @ router.astype(np.float64))
    probabilities = wide / wide.sum(-1, keepdims=True)
    np.testing.assert_allclose(got.router.importance[0], probabilities.sum(0), rtol=1e-5)
    np.testing.assert_array_equal(got.load.sum(), ROWS * LENGTH)
