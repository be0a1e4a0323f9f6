"""Attention in XLA's own operations, for any device; its scores are arrays [B, H, L, M]."""

import jax
import jax.numpy as jnp

from switch_jax.kernels.attention_kernel import MASKED
from switch_jax.model.layers import dropout


def dot_product_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array | None,
    query_segments: jax.Array,
    key_segments: jax.Array,
    *,
    num_heads: int,
    causal: bool,
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
) -> jax.Array:
    """As `kernels.attention_kernel.fused_attention`, for any platform, and with dropout."""
    batch, length, _ = q.shape
    size = q.shape[-1] // num_heads
    h, heads = in_groups(num_heads, k.shape[-1] // size)
    q = q.reshape(batch, length, *heads, size)  # [B, L, H, K], or [B, L, H, queries, K]
    k, v = (x.reshape(batch, x.shape[1], -1, size) for x in (k, v))  # [B, M, H, K]
    scores = jnp.einsum(f"bl{h}k,bmhk->b{h}lm", q, k, preferred_element_type=jnp.float32)
    scores = scores.reshape(batch, num_heads, *scores.shape[-2:])  # [B, H, L, M]
    if bias is not None:
        scores = scores + bias_by_pair(bias, length, k.shape[1])  # [B, H, L, M]
    mask = segment_mask(query_segments, key_segments)  # [B, L, M]
    if causal:
        mask &= causal_mask(length)  # [B, L, M]
    scores = jnp.where(mask[:, None], scores, MASKED)  # [B, H, L, M]
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)  # [B, H, L, M]
    weights = dropout(weights, dropout_rate, key)  # [B, H, L, M]
    weights = weights.reshape(batch, *heads, *weights.shape[-2:])
    y = jnp.einsum(f"b{h}lm,bmhk->bl{h}k", weights, v)  # as q
    return y.reshape(batch, length, -1)  # [B, L, H * K]


def in_groups(num_heads: int, key_value_heads: int) -> tuple[str, tuple[int, ...]]:
    """The axes of the heads of queries: their letters in an einsum, and their sizes.

    One axis 'h', where each has keys and values of its own; with grouped queries 'hg', of groups
    and the heads of a group, whose keys and values are a head 'h'.
    """
    if num_heads == key_value_heads:
        return "h", (num_heads,)
    return "hg", (key_value_heads, num_heads // key_value_heads)


def bias_by_pair(bias: jax.Array, length: int, memory: int) -> jax.Array:
    """[H, 2 W] by query-minus-key distance, from -W to W - 1 -> [H, L, M] by query and key.

    Each row of the result is the row before it, moved right by one key. No gather is used, since
    its gradient would be a scatter. Instead, one row of n distances and a padding element is
    repeated L times, end to end, and cut again into rows of n: each starts one element earlier.
    """
    start = bias.shape[1] // 2 - length
    if start < 0 or bias.shape[1] < 2 * memory:
        raise ValueError(f"a bias of width {bias.shape[1]} is too short for {length} x {memory}")
    bias = bias[:, ::-1][:, start : start + length + memory - 1]  # [H, n], n = L + M - 1
    heads, distances = bias.shape
    rows = jnp.pad(bias, ((0, 0), (0, 1)))[:, None]  # [H, 1, n + 1]
    rows = jnp.broadcast_to(rows, (heads, length, distances + 1)).reshape(heads, -1)  # [H, L(n+1)]
    rows = rows[:, length - 1 : length - 1 + length * distances]  # [H, L * n]
    return rows.reshape(heads, length, distances)[:, :, :memory]  # [H, L, M]


def segment_mask(query_segments: jax.Array, key_segments: jax.Array) -> jax.Array:
    """[B, L], [B, M] segments -> [B, L, M] bool: the same segment, and not 0 (padding)."""
    is_same = query_segments[:, :, None] == key_segments[:, None, :]  # [B, L, M]
    return is_same & (key_segments != 0)[:, None, :]  # [B, L, M]


def causal_mask(length: int) -> jax.Array:
    """[1, L, L] bool: the key is not to the right of the query."""
    position = jnp.arange(length)
    return (position[:, None] >= position[None, :])[None]
