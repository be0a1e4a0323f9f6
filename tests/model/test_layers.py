"""The parts of a layer, on arrays small enough to work out by hand."""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from switch_jax.model.activations import ACTIVATIONS
from switch_jax.model.attention import DenseSelfAttention
from switch_jax.model.dot_product_attention import bias_by_pair
from switch_jax.model.feed_forward import DenseFeedForward, SwitchFeedForward
from switch_jax.model.layer_context import DropoutKeys, LayerContext
from switch_jax.model.layers import RMSNorm, dropout, project
from switch_jax.moe import Tokens
from tests.trainer.helpers import tiny_model

_config = functools.partial(tiny_model, embed_dim=2, mlp_dim=1, head_dim=1, num_heads=1)


def _tokens(segments):
    segments = jnp.asarray(segments, jnp.int32)
    return Tokens(jnp.zeros_like(segments), segments)


def test_rms_norm_by_hand():
    norm = RMSNorm(_config(norm_epsilon=0.5))
    norm.scale[...] = jnp.array([1.0, 10.0])
    # Mean square 12.5, with epsilon 13; a mean is not taken off.
    expected = [[3 / 13**0.5, 40 / 13**0.5], [0.0, 0.0]]
    np.testing.assert_allclose(norm(jnp.array([[3.0, 4.0], [0.0, 0.0]])), expected, rtol=1e-6)
    # 300^2 is past float16 and its bfloat16 square is 0.2 % off; the dtype of the result is x's.
    wide = norm(jnp.full((1, 2), 300, jnp.bfloat16))
    assert wide.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(wide, np.float32), [[1.0, 10.0]], rtol=1e-3)


@pytest.mark.parametrize(("length", "memory"), [(4, 4), (1, 3), (3, 1), (2, 5)])
def test_bias_by_distance_becomes_one_by_pair_without_gather_or_scatter(length, memory):
    bias = np.arange(2.0 * 12).reshape(2, 12)  # of distances -6 to 5
    distance = np.arange(length)[:, None] - np.arange(memory)[None, :]
    by_pair, pullback = jax.vjp(lambda bias: bias_by_pair(bias, length, memory), bias)
    np.testing.assert_array_equal(by_pair, bias[:, 6 + distance])
    gradient = jax.jit(pullback).lower(by_pair).compile().as_text()
    assert not re.search(r" (gather|scatter)\(", gradient)


def test_attention_averages_what_the_masks_leave():
    """One head of size 2 with queries of 0, so that all scores are equal."""
    config = _config(head_dim=2)
    attention = DenseSelfAttention(config, config.stacks[1], rngs=nnx.Rngs(0))
    for name in ("query", "key", "value", "out"):
        getattr(attention, name)[...] = jnp.eye(2) * (name != "query")
    x = jnp.array([[[1.0, 0.0], [0.0, 1.0], [5.0, 7.0], [9.0, 9.0]]])
    y, (keys, _), _ = attention(x, _tokens([[1, 1, 2, 0]]), LayerContext())
    np.testing.assert_allclose(y[0, :3], [[1, 0], [0.5, 0.5], [5, 7]], rtol=1e-6)
    assert np.isfinite(y).all()  # also on padding, which may look nowhere
    np.testing.assert_array_equal(keys, x)


def test_gated_gelu_by_hand():
    """D = F = 1 and kernels of 1: gelu(x) * x, with T5 1.1's tanh approximation."""
    config = _config(embed_dim=1, activation="gated-gelu")
    layer = DenseFeedForward(config, nnx.Rngs(0))
    layer.wi_0[...] = layer.wi_1[...] = layer.wo[...] = jnp.ones((1, 1))
    layer.wi_1[...] = 3 * jnp.ones((1, 1))
    y, _ = layer(jnp.full((1, 1, 1), 2.0), _tokens([[1]]), LayerContext())
    gelu = 0.5 * 2 * (1 + math.tanh((2 / math.pi) ** 0.5 * (2 + 0.044715 * 8)))
    np.testing.assert_allclose(y, [[[gelu * 6]]], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "sigmoid_of_3"), [("swiglu", 1 / (1 + math.exp(-3))), ("reglu", 1)]
)
def test_other_gates_by_hand(name, sigmoid_of_3):
    """The gate 3, by SiLU or ReLU, and -3, times the other projection, 4."""
    function, projections = ACTIVATIONS[name]
    assert projections == 2
    y = function(jnp.array([3.0, -3.0]), jnp.array([4.0, 4.0]))
    negative = -3 * (1 - sigmoid_of_3) * 4
    np.testing.assert_allclose(y, [3 * sigmoid_of_3 * 4, negative], rtol=1e-6, atol=1e-7)


def test_a_shared_expert_is_added_for_every_token_dropped_ones_too():
    config = _config(
        embed_dim=4, mlp_dim=8, num_experts=2, group_size=8, eval_expert_capacity_factor=0.5,
        dropout_rate=0.5, shared_expert_mlp_dim=3,
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=(1, 8, 4)).astype(np.float32)
    key = jax.random.key(1)

    @jax.jit
    def run(x):
        layer = SwitchFeedForward(config, config.stacks[0], rngs=nnx.Rngs(0))
        plain = dataclasses.replace(config, shared_expert_mlp_dim=None)
        alone = SwitchFeedForward(plain, config.stacks[0], rngs=nnx.Rngs(0))
        tokens = _tokens([[1] * 8])
        y, (statistics, _) = layer(x, tokens, LayerContext())
        noisy, _ = layer(x, tokens, LayerContext(dropout=DropoutKeys(feed_forward=key)))
        without, _ = alone(x, tokens, LayerContext())
        wi, wo = layer.shared_expert.wi_0[...], layer.shared_expert.wo[...]
        return y, noisy, without, statistics.dropped, wi, wo

    y, noisy, without, dropped, wi, wo = run(x)
    assert dropped >= 0.5
    assert (wi.shape, wo.shape) == ((4, 3), (3, 4))
    hidden = np.maximum(x @ wi, 0)
    np.testing.assert_allclose(y, without + hidden @ wo, atol=1e-6)
    # Its dropout is that of dense layers.
    np.testing.assert_allclose(noisy, without + dropout(hidden, 0.5, key) @ wo, atol=1e-6)


def test_dropout_has_one_mask_for_all_positions_of_a_row():
    """T5's noise shape leaves the length out; rows, heads and features each have their own."""
    x = jnp.ones((64, 2, 5, 128), jnp.bfloat16)
    y = np.asarray(dropout(x, 0.25, jax.random.key(0)))
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :, :1], y.shape))
    np.testing.assert_allclose(np.unique(y).astype(float), [0, 1 / 0.75], rtol=1e-2)
    kept = y[:, :, 0].reshape(128, 128) != 0  # the mean of 16384 draws errs by 0.003
    assert abs(kept.mean() - 0.75) < 0.015
    assert 0 < kept.mean(0).min() and kept.mean(0).max() < 1
    assert len({tuple(mask) for mask in kept}) == 128


def test_a_cpu_transposes_nothing_for_the_gradient_of_a_kernel():
    """It sums over the first axis of both factors, in the layout that they have."""

    def loss(x, kernel):
        return jnp.square(project(x, kernel)).sum()

    shapes = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4, 64, 128), (128, 256)))
    program = jax.jit(jax.grad(loss, argnums=1)).lower(*shapes).compile().as_text()
    contracted = re.findall(r"lhs_contracting_dims={(.*?)}, rhs_contracting_dims={(.*?)}", program)
    assert sorted(contracted) == [("0", "0"), ("1", "0")], "of the gradient, and of the product"
