"""The parts of a layer, on arrays small enough to work out by hand."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from switch_jax.config import ModelConfig
from switch_jax.model.attention import DenseSelfAttention, attend
from switch_jax.model.dot_product_attention import bias_by_pair, causal_mask, segment_mask
from switch_jax.model.feed_forward import DenseFeedForward, SwitchFeedForward, relu
from switch_jax.model.layers import RMSNorm, dropout, project
from switch_jax.moe import tokens_of
from switch_jax.moe.tokens import DropoutKeys


def _config(**sizes):
    least = dict.fromkeys(("num_embeddings", "mlp_dim", "head_dim", "num_heads"), 1)
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    return ModelConfig(
        **{**least, **layers, "embed_dim": 2, "activation_dtype": "float32", **sizes}
    )


def _tokens(segments, key=None):
    segments = jnp.asarray(segments, jnp.int32)
    return tokens_of(jnp.zeros_like(segments), segments, key)


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


def test_masks_by_hand():
    mask = segment_mask(jnp.array([[1, 1, 2, 0]]), jnp.array([[1, 2, 2, 0, 0]]))
    expected = [[1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(mask, np.array([expected], bool))
    np.testing.assert_array_equal(causal_mask(3), np.array([[[1, 0, 0], [1, 1, 0], [1, 1, 1]]]))


@pytest.mark.parametrize(("length", "memory"), [(4, 4), (1, 3), (3, 1), (2, 5)])
def test_bias_by_distance_becomes_one_by_pair_without_gather_or_scatter(length, memory):
    bias = np.arange(2.0 * 12).reshape(2, 12)  # of distances -6 to 5
    distance = np.arange(length)[:, None] - np.arange(memory)[None, :]
    np.testing.assert_array_equal(bias_by_pair(bias, length, memory), bias[:, 6 + distance])
    weights = np.random.default_rng(0).normal(size=(2, length, memory))

    def weighted(bias, weights):
        return (bias_by_pair(bias, length, memory) * weights).sum()

    gradient = jax.jit(jax.grad(weighted)).lower(bias, weights).compile()
    expected = [np.trace(weights, -d, axis1=1, axis2=2) for d in range(-6, 6)]
    np.testing.assert_allclose(gradient(bias, weights), np.stack(expected, 1), rtol=1e-5)
    assert not re.search(r" (gather|scatter)\(", gradient.as_text())


def test_attention_averages_what_the_masks_leave():
    """One head of size 2 with queries of 0, so that all scores are equal."""
    attention = DenseSelfAttention(_config(head_dim=2), decoder=True, rngs=nnx.Rngs(0))
    for name in ("query", "key", "value", "out"):
        getattr(attention, name)[...] = jnp.eye(2) * (name != "query")
    x = jnp.array([[[1.0, 0.0], [0.0, 1.0], [5.0, 7.0], [9.0, 9.0]]])
    y, (keys, _), _ = attention(x, _tokens([[1, 1, 2, 0]]))
    np.testing.assert_allclose(y[0, :3], [[1, 0], [0.5, 0.5], [5, 7]], rtol=1e-6)
    assert np.isfinite(y).all()  # also on padding, which may look nowhere
    np.testing.assert_array_equal(keys, x)


def test_attention_adds_the_bias_and_does_not_scale_its_scores():
    q, k = jnp.array([[[1.0, 0.0]]]), jnp.array([[[2.0, 0.0], [0.0, 1.0]]])
    segments = jnp.ones((1, 1), int), jnp.ones((1, 2), int)
    # Of keys two and one to the right of the query, at its place, and left of it.
    bias = jnp.array([[9.0, 1.0, 0.0, 9.0]])
    y = attend(_config(head_dim=2), q, k, k, bias, *segments, key=None)
    # Scores q . k = 2 and 0, plus 0 and 1: weights e / (1 + e) and 1 / (1 + e).
    expected = [[[2 * math.e / (1 + math.e), 1 / (1 + math.e)]]]
    np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_heads_are_consecutive_columns_and_see_their_own_bias():
    """Two heads of size 1 on one token pair: head 0 is biased to key 0, head 1 to key 1."""
    q, k = jnp.zeros((1, 1, 2)), jnp.array([[[1.0, 2.0], [3.0, 4.0]]])
    segments = jnp.ones((1, 1), int), jnp.ones((1, 2), int)
    bias = jnp.array([[0.0, 0.0, 50.0, 0.0], [0.0, 50.0, 0.0, 0.0]])  # by distances -2 to 1
    y = attend(_config(num_heads=2), q, k, k, bias, *segments, key=None)
    np.testing.assert_allclose(y, [[[1.0, 4.0]]], rtol=1e-6)


def test_gated_gelu_by_hand():
    """D = F = 1 and kernels of 1: gelu(x) * x, with T5 1.1's tanh approximation."""
    config = _config(embed_dim=1, activation="gated-gelu")
    layer = DenseFeedForward(config, nnx.Rngs(0))
    layer.wi_0[...] = layer.wi_1[...] = layer.wo[...] = jnp.ones((1, 1))
    layer.wi_1[...] = 3 * jnp.ones((1, 1))
    y, _ = layer(jnp.full((1, 1, 1), 2.0), _tokens([[1]]))
    gelu = 0.5 * 2 * (1 + math.tanh((2 / math.pi) ** 0.5 * (2 + 0.044715 * 8)))
    np.testing.assert_allclose(y, [[[gelu * 6]]], rtol=1e-6)


def test_a_shared_expert_is_added_for_every_token_dropped_ones_too():
    config = _config(
        embed_dim=4, mlp_dim=8, num_experts=2, group_size=8, sparse_step=1, min_expert_capacity=1,
        eval_expert_capacity_factor=0.5, train_expert_capacity_factor=0.5, expert_dropout_rate=0.0,
        jitter_noise=0.0, dropout_rate=0.5, shared_expert_mlp_dim=3,
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=(1, 8, 4)).astype(np.float32)
    key = jax.random.key(1)

    @jax.jit
    def run(x):
        layer = SwitchFeedForward(config, decoder=False, rngs=nnx.Rngs(0))
        plain = dataclasses.replace(config, shared_expert_mlp_dim=None)
        alone = SwitchFeedForward(plain, decoder=False, rngs=nnx.Rngs(0))
        tokens = _tokens([[1] * 8])
        y, statistics = layer(x, tokens)
        noisy, _ = layer(x, tokens.replace(dropout=DropoutKeys(feed_forward=key)))
        without, _ = alone(x, tokens)
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
    """T5's noise shape leaves the length out; rows and features each have their own."""
    y = np.asarray(dropout(jnp.ones((64, 5, 128)), 0.25, jax.random.key(0)))
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1], y.shape))
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.75], rtol=1e-6)
    kept = y[:, 0] != 0  # [64, 128]; the mean of 8192 draws errs by 0.005
    assert abs(kept.mean() - 0.75) < 0.02
    assert 0 < kept.mean(0).min() and kept.mean(0).max() < 1 and np.ptp(kept.mean(1)) > 0.05


def test_dropout_of_attention_weights_has_one_mask_for_all_queries():
    weights = np.asarray(dropout(jnp.ones((4, 2, 7, 64), jnp.bfloat16), 0.5, jax.random.key(1)))
    np.testing.assert_array_equal(weights, np.broadcast_to(weights[:, :, :1], weights.shape))
    assert weights.dtype == jnp.bfloat16
    masks = {tuple(row) for row in (weights[:, :, 0] != 0).reshape(8, 64)}
    assert len(masks) == 8  # each row and head has its own


def test_relu_gradient_passes_where_the_input_is_positive():
    x = jnp.array([-2.0, -0.0, 0.0, 0.5, 3.0])
    np.testing.assert_array_equal(relu(x), [0, 0, 0, 0.5, 3])
    np.testing.assert_array_equal(jax.vjp(relu, x)[1](2 * jnp.ones(5))[0], [0, 0, 0, 2, 2])


def test_a_projection_is_the_product_of_each_token():
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 5, 8), (8, 6)))
    y, gradients = jax.vjp(project, jnp.asarray(x, jnp.bfloat16), jnp.asarray(kernel))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(np.float32), np.einsum("bld,df->blf", x, kernel), atol=0.1)
    y, gradients = jax.vjp(project, x, kernel)
    np.testing.assert_allclose(y, np.einsum("bld,df->blf", x, kernel), rtol=1e-5, atol=1e-6)
    for_x, for_kernel = gradients(y)
    np.testing.assert_allclose(for_x, np.einsum("blf,df->bld", y, kernel), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(for_kernel, np.einsum("bld,blf->df", x, y), rtol=1e-5, atol=1e-5)


def test_a_cpu_transposes_nothing_for_the_gradient_of_a_kernel():
    """It sums over the first axis of both factors, in the layout that they have."""

    def loss(x, kernel):
        return jnp.square(project(x, kernel)).sum()

    shapes = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4, 64, 128), (128, 256)))
    program = jax.jit(jax.grad(loss, argnums=1)).lower(*shapes).compile().as_text()
    contracted = re.findall(r"lhs_contracting_dims={(.*?)}, rhs_contracting_dims={(.*?)}", program)
    assert sorted(contracted) == [("0", "0"), ("1", "0")], "of the gradient, and of the product"
