"""Rotary positions, grouped queries and norms of heads, against NumPy and Hugging Face's Qwen3."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict

from switch_jax.config import MeshConfig
from switch_jax.model import abstract_parameters, bind, init_parameters, model_inputs
from switch_jax.model.attention import CrossAttention, DenseSelfAttention, Encoded
from switch_jax.model.heads import Rotation
from switch_jax.model.layer_context import LayerContext
from switch_jax.model.parameter_names import parameter_axes, sizes_by_group
from switch_jax.moe import Tokens
from switch_jax.optim.parameter_kinds import is_matrix
from switch_jax.partitioning.mesh import batch_sharding, make_mesh
from switch_jax.train_step.state import abstract_model
from tests.trainer.helpers import random_batch, tiny_model

B, L, D, H, GROUPS, K, BASE = 3, 9, 12, 6, 2, 4, 50.0
SIZES = {"embed_dim": D, "num_heads": H, "head_dim": K}
ROTARY = {"positions": "rotary", "rotary_base": BASE}
GROUPED = {"num_key_value_heads": GROUPS}
# All of a Transformer of today that an encoder-decoder can have.
TODAY = {"positions": "rotary", "qk_norm": True, "num_key_value_heads": 2, "activation": "swiglu"}


def rotated(x, positions, base):
    """[..., L, H, K]: elements i and i + K / 2 as complex numbers, times exp(1j * angle)."""
    half = x.shape[-1] // 2
    angles = np.multiply.outer(positions, base ** (-np.arange(half) / half))  # [L, K / 2]
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)[:, None]
    return np.concatenate([turned.real, turned.imag], axis=-1)


def normalised(x, scale, epsilon=1e-6):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * scale


def attention(config, kernels, x, memory, segments, memory_segments, causal, has_positions):
    """An attention layer in NumPy, float64, a head of queries at a time."""
    query, key, value, out = (kernels[name] for name in ("query", "key", "value", "out"))
    q, k, v = (
        (y @ kernel).reshape(*y.shape[:2], -1, K)
        for y, kernel in ((x, query), (memory, key), (memory, value))
    )
    if config.qk_norm:
        q, k = normalised(q, kernels["query_norm"]), normalised(k, kernels["key_norm"])
    is_rotary = config.positions == "rotary"
    if is_rotary and has_positions:
        q, k = (rotated(y, np.arange(y.shape[1]), BASE) for y in (q, k))
    sees = (segments[:, :, None] == memory_segments[:, None]) & (memory_segments != 0)[:, None]
    if causal:
        sees &= np.tri(x.shape[1], dtype=bool)
    heads = []
    for head in range(H):
        of_keys = head * k.shape[2] // H
        scores = np.einsum("blk,bmk->blm", q[:, :, head], k[:, :, of_keys])
        scores = np.where(sees, scores / (K**0.5 if is_rotary else 1), -1e9)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        heads.append(weights @ v[:, :, of_keys])
    return np.concatenate(heads, axis=-1) @ out


def kernels_of(layer, rng):
    """Random kernels and norms, which the layer gets, too."""
    kernels = {}
    for name, parameter in (("query", layer.query), ("key", layer.key), ("value", layer.value),
                            ("out", layer.out)):  # fmt: skip
        kernels[name] = rng.normal(size=parameter.shape) / parameter.shape[0] ** 0.5
        parameter[...] = jnp.asarray(kernels[name], jnp.float32)
    if layer.config.qk_norm:
        for name in ("query_norm", "key_norm"):
            kernels[name] = 1 + rng.random(K)
            getattr(layer, name).scale[...] = jnp.asarray(kernels[name], jnp.float32)
    return kernels


CASES = [
    ROTARY,
    GROUPED,
    {"qk_norm": True},
    {**ROTARY, "num_key_value_heads": 1, "qk_norm": True},
]


@pytest.mark.parametrize("changes", CASES)
@pytest.mark.parametrize("causal", [False, True])
def test_self_attention(changes, causal):
    config, rng = tiny_model(**SIZES, **changes), np.random.default_rng(0)
    layer = DenseSelfAttention(config, config.stacks[causal], nnx.Rngs(0))
    kernels, x = kernels_of(layer, rng), rng.normal(size=(B, L, D))
    segments = np.sort(rng.integers(0, 3, (B, L)), axis=1)[:, ::-1]
    rotation = Rotation.of(config, jnp.arange(L)) if config.has_rotary_positions else None
    tokens = Tokens(jnp.asarray(segments), jnp.asarray(segments))
    y, (k, _), _ = layer(jnp.asarray(x, jnp.float32), tokens, LayerContext(rotation=rotation))
    expected = attention(config, kernels, x, x, segments, segments, causal, has_positions=True)
    np.testing.assert_allclose(y, np.where(segments[..., None] > 0, expected, y), atol=2e-5)
    assert k.shape == (B, L, config.key_value_heads * K)


def test_cross_attention_knows_no_positions():
    config, rng = tiny_model(**SIZES, **ROTARY, **GROUPED, qk_norm=True), np.random.default_rng(1)
    layer = CrossAttention(config, nnx.Rngs(0))
    kernels, x, memory = (
        kernels_of(layer, rng),
        rng.normal(size=(B, L, D)),
        rng.normal(size=(B, 5, D)),
    )
    segments, memory_segments = np.ones((B, L), int), np.array([[1, 1, 1, 1, 0]] * B)
    rotation = Rotation.of(config, jnp.arange(L))  # that of the stack's self-attention
    encoded = Encoded(jnp.asarray(memory, jnp.float32), jnp.asarray(memory_segments))
    tokens = Tokens(jnp.asarray(segments), jnp.asarray(segments))
    y = layer(jnp.asarray(x, jnp.float32), tokens, LayerContext(rotation=rotation), encoded)
    expected = attention(
        config, kernels, x, memory, segments, memory_segments, causal=False, has_positions=False
    )
    np.testing.assert_allclose(y, expected, atol=2e-5)


def test_it_is_the_attention_of_qwen3():
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.qwen3.modeling_qwen3")
    theirs = modeling.Qwen3Config(
        hidden_size=D, num_attention_heads=H, num_key_value_heads=GROUPS, head_dim=K,
        rope_parameters={"rope_type": "default", "rope_theta": BASE}, rms_norm_eps=1e-6,
        attn_implementation="eager",
    )  # fmt: skip
    rng = np.random.default_rng(2)
    config = tiny_model(**SIZES, **ROTARY, **GROUPED, qk_norm=True)
    layer = DenseSelfAttention(config, config.stacks[1], nnx.Rngs(0))
    kernels, x = kernels_of(layer, rng), rng.normal(size=(B, L, D)).astype(np.float32)
    module = modeling.Qwen3Attention(theirs, layer_idx=0)
    names = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "out",
             "q_norm": "query_norm", "k_norm": "key_norm"}  # fmt: skip
    module.load_state_dict(
        {
            f"{name}.weight": torch.tensor(kernels[ours].T.copy()).float()
            for name, ours in names.items()
        }
    )
    positions = torch.arange(L)[None]
    with torch.no_grad():
        embeddings = modeling.Qwen3RotaryEmbedding(theirs)(torch.tensor(x), positions)
        mask = torch.triu(torch.full((L, L), -1e9), diagonal=1)[None, None]
        expected = module(torch.tensor(x), embeddings, mask)[0].numpy()
    ones = jnp.ones((B, L), jnp.int32)
    rotation = Rotation.of(config, jnp.arange(L))
    y, _, _ = layer(jnp.asarray(x), Tokens(ones, ones), LayerContext(rotation=rotation))
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_scores_of_a_packed_example_do_not_depend_on_its_place_in_the_row():
    """Far into the row, in float32: rotary positions are relative."""
    config, rng = tiny_model(**SIZES, positions="rotary", rotary_base=1e6), np.random.default_rng(3)
    q, k = rng.normal(size=(2, 1, L, H, K)).astype(np.float32)
    near, far = (Rotation.of(config, first + jnp.arange(L)) for first in (0, 30_000))
    scores, moved = (jnp.einsum("blhk,bmhk->bhlm", turn(q), turn(k)) for turn in (near, far))
    np.testing.assert_allclose(moved, scores, atol=0.02)
    np.testing.assert_allclose(near(q), rotated(q, np.arange(L), 1e6), atol=1e-6)


def test_a_rotary_model_has_no_relative_biases_and_norms_are_no_matrices():
    plain, today = tiny_model(), tiny_model(**TODAY)
    shapes = {
        name: a.shape for name, a in flatten_dict(abstract_parameters(today), sep="/").items()
    }
    assert not any("relative_position_bias" in name for name in shapes)
    norms = {name: axes for name, axes in parameter_axes(today).items() if "key_norm/" in name}
    assert {name.split("/")[3] for name in norms} == {"self_attention", "cross_attention"}
    assert all(shapes[name][1:] == (today.head_dim,) for name in norms)
    assert not any(map(is_matrix, norms.values()))
    added = {
        group: size - sizes_by_group(plain).get(group, 0)
        for group, size in sizes_by_group(today).items()
        if group.endswith("/norms")
    }  # queries and keys, of 2 layers of the encoder and, twice each, of 2 of the decoder
    assert added == {"encoder/norms": 2 * 2 * 8, "decoder/norms": 2 * 2 * 2 * 8}


def test_initial_scores_have_the_variance_of_t5s():
    """About 1, for normalised inputs, wherever the factor 1 / sqrt(K) is."""
    for changes in ({}, {"qk_norm": True}, ROTARY, {**ROTARY, "qk_norm": True}):
        config = tiny_model(embed_dim=64, num_heads=4, head_dim=16, **changes)
        layer = DenseSelfAttention(config, config.stacks[0], nnx.Rngs(0))
        x = jax.random.normal(jax.random.key(0), (1, 64, 64))
        q, (k, _), _ = layer.queries_keys_and_values(x, Tokens(x, x), LayerContext())
        q, k = (y.reshape(64, 4, 16) for y in (layer.ready_queries(q), layer.ready_keys(k)))
        deviation = np.std(np.einsum("lhk,mhk->hlm", q, k))
        assert 0.8 < deviation < 1.2, (changes, deviation)


def test_losses_and_gradients_on_eight_devices_are_those_of_one():
    """Dense attention in the encoder, and experts' in the decoder."""
    model = tiny_model(
        **TODAY, num_heads=4, jitter_noise=0.0, group_size=8, tie_embeddings=False,
        num_encoder_layers=1, num_encoder_sparse_layers=0, num_decoder_layers=1, sparse_step=1,
        expert_sublayers="both",
    )  # fmt: skip
    parameters = jax.jit(init_parameters, static_argnums=0)(model, jax.random.key(0))
    batch = random_batch(8)

    def loss(parameters, batch):
        logits = bind(model, parameters)(*model_inputs(model, batch), key=jax.random.key(1)).logits
        return jnp.mean(jax.nn.logsumexp(logits, -1) - logits[..., 3])

    def run(sizes):
        config = MeshConfig(*sizes)
        mesh = make_mesh(config, jax.devices()[: np.prod(sizes)])
        with jax.set_mesh(mesh):
            shardings = jax.tree.map(lambda x: x.sharding, abstract_model(model, config, mesh))
            placed = jax.device_put((parameters, batch), (shardings, batch_sharding(mesh)))
            return jax.device_get(jax.jit(jax.value_and_grad(loss))(*placed))

    expected, gradients = run((1, 1, 1))
    for sizes in ((2, 2, 2), (1, 2, 4)):  # a device has a head of keys and values, or half of one
        found, found_gradients = run(sizes)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        for a, b in zip(*map(jax.tree.leaves, (found_gradients, gradients)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5 + 1e-4 * np.abs(b).max())
