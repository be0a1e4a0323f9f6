"""T5's multi-head attention: scores are not scaled, and relative positions are an additive bias."""

import jax
import jax.numpy as jnp
from flax import nnx

from switch_jax.config import ModelConfig
from switch_jax.kernels.attention_kernel import MASKED
from switch_jax.model import parameters
from switch_jax.model.dot_product_attention import dot_product_attention
from switch_jax.model.fused_attention import fused_kernel, on_mesh
from switch_jax.model.layers import project


class Attention(nnx.Module):
    """Multi-head attention with kernels [D, H * K].

    These are matrices, and not [D, H, K], so that a TPU lays them out well and Adafactor factors
    them correctly.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        dim, inner = config.embed_dim, config.num_heads * config.head_dim
        scale = config.scale
        into, out = ("embed", "heads"), ("heads", "embed")
        # The factor 1 / sqrt(K) of dot-product attention is part of the query's initialisation.
        query_variance = scale / (dim * config.head_dim)
        self.query = parameters.truncated_normal(rngs, (dim, inner), into, query_variance)
        self.key = parameters.truncated_normal(rngs, (dim, inner), into, scale / dim)
        self.value = parameters.truncated_normal(rngs, (dim, inner), into, scale / dim)
        self.out = parameters.truncated_normal(rngs, (inner, dim), out, scale / inner)
        self.config = config

    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array,
        query_segments: jax.Array,
        key_segments: jax.Array,
        bias: jax.Array | None = None,
        *,
        causal: bool = False,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Attends from x to memory.

        Args:
          x: [B, L, D] queries.
          memory: [B, M, D] keys and values; x itself in self-attention.
          query_segments, key_segments: [B, L], [B, M] int32. A query sees the keys of its own
            segment; 0 = padding, which no query sees.
          bias: [H, 2 W] float32, added to the scores by query-minus-key distance, from -W to
            W - 1. W is at least L and M, and on TPU a multiple of 128; see `RelativePositionBias`.
          causal: a query sees no key to its right.
          key: for dropout on the attention weights; None = no dropout.

        Returns:
          [B, L, D].
        """
        q = project(x, self.query[...])  # [B, L, H * K]
        k, v = self.keys_and_values(memory)  # [B, M, H * K]
        arrays = q, k, v, bias, query_segments, key_segments
        y = attend(self.config, *arrays, causal=causal, key=key)  # [B, L, H * K]
        return project(y, self.out[...])  # [B, L, D]

    def keys_and_values(self, memory: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[..., D] -> keys and values, each [..., H * K]."""
        k, v = (project(memory, kernel[...]) for kernel in (self.key, self.value))
        return k, v

    def step_cross(
        self, x: jax.Array, keys: jax.Array, values: jax.Array, key_segments: jax.Array
    ) -> jax.Array:
        """Cross-attention in decoding, to keys and values that were computed before.

        Beams stand where queries do.

        Args:
          x: [B, beams, D].
          keys, values: [B, M, H * K].
          key_segments: [B, M] int32: 1, or 0 for padding.

        Returns:
          [B, beams, D].
        """
        q = project(x, self.query[...])  # [B, beams, H * K]
        query_segments = jnp.ones(x.shape[:2], key_segments.dtype)  # [B, beams]
        arrays = q, keys, values, None, query_segments, key_segments
        y = dot_product_attention(
            *arrays, num_heads=self.config.num_heads, causal=False
        )  # [B, beams, H * K]
        return project(y, self.out[...])  # [B, beams, D]

    def step(
        self,
        x: jax.Array,
        valid: jax.Array,
        keys: jax.Array,
        values: jax.Array,
        bias: jax.Array,
        position: jax.Array,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Self-attention of one new token of each beam to the tokens before it and to itself.

        Args:
          x: [B, beams, D].
          valid: [B, beams] bool, False for a beam that has ended; it is computed like the others.
          keys, values: [B, beams, L, H * K], of which those before `position` are used.
          bias: [H, 2 W] float32, the same as for `__call__`; W is at least L.
          position: scalar int32, that of the new token: from 0 to L - 1.

        Returns:
          [B, beams, D], and the key and value of the new token, each [B, beams, H * K].
        """
        del valid
        k, v = self.keys_and_values(x)  # [B, beams, H * K]
        q = project(x, self.query[...])  # [B, beams, H * K]
        y = attend_to_cache(self.config, q, k, v, keys, values, bias, position)
        return project(y, self.out[...]), (k, v)


def attend(
    config: ModelConfig,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array | None,
    query_segments: jax.Array,
    key_segments: jax.Array,
    *,
    causal: bool,
    key: jax.Array | None,
) -> jax.Array:
    """The weighted sums of the values; see `Attention.__call__`.

    [B, L, H * K], [B, M, H * K], [B, M, H * K] -> [B, L, H * K].
    """
    rate = 0.0 if key is None else config.dropout_rate
    arrays = q, k, v, bias, query_segments, key_segments
    heads = config.num_heads
    if rate == 0 and (kernel := fused_kernel(config, q, k, bias is not None)):
        return on_mesh(kernel)(*arrays, num_heads=heads, causal=causal)
    return dot_product_attention(
        *arrays, num_heads=heads, causal=causal, dropout_rate=rate, key=key
    )


def attend_to_cache(
    config: ModelConfig,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    bias: jax.Array,
    position: jax.Array,
) -> jax.Array:
    """The same for one new token of each beam; see `Attention.step`.

    q, k and v are the new token's, [B, beams, H * K], as is the result.
    """
    batch, beams, length, _ = keys.shape
    q, k, v = (y.reshape(batch, beams, config.num_heads, -1) for y in (q, k, v))  # [B, beams, H, K]
    keys, values = (
        y.reshape(batch, beams, length, *q.shape[2:]) for y in (keys, values)
    )  # [B, beams, L, H, K]
    cached_scores = jnp.einsum(
        "bnhk,bnlhk->bnhl", q, keys, preferred_element_type=jnp.float32
    )  # [B, beams, H, L]
    own_score = jnp.einsum(
        "bnhk,bnhk->bnh", q, k, preferred_element_type=jnp.float32
    )  # [B, beams, H]
    # Key 0 is at distance `position`; from each key to the next the distance falls by 1. So the
    # bias is read from right to left.
    width = bias.shape[1] // 2
    key_bias = jax.lax.dynamic_slice_in_dim(
        bias[:, ::-1], width - 1 - position, length, axis=1
    )  # [H, L]
    cached_scores = jnp.where(
        jnp.arange(length) < position, cached_scores + key_bias, MASKED
    )  # [B, beams, H, L]
    scores = jnp.concatenate(
        [cached_scores, (own_score + bias[:, width])[..., None]], axis=-1
    )  # [B, beams, H, L + 1]
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)  # [B, beams, H, L + 1]
    cached = jnp.einsum("bnhl,bnlhk->bnhk", weights[..., :-1], values)  # [B, beams, H, K]
    return (cached + weights[..., -1:] * v).reshape(batch, beams, -1)  # [B, beams, H * K]
