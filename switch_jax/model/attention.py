"""T5's multi-head attention: scores are not scaled, and relative positions are an additive bias."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec

from switch_jax.config import ModelConfig
from switch_jax.kernels.attention_kernel import MASKED, fused_attention
from switch_jax.kernels.attention_sizes import choose_tiling
from switch_jax.model import parameters
from switch_jax.model.layers import dropout, project
from switch_jax.partitioning.mesh import BATCH, MODEL, batch_shards, current_mesh, has_kernels


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
    if rate == 0 and can_fuse(q, k, heads, bias is not None):
        return fused_attention_on_mesh(*arrays, num_heads=heads, causal=causal)
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
    q, k, v = (x.reshape(batch, x.shape[1], num_heads, -1) for x in (q, k, v))  # [B, L or M, H, K]
    scores = jnp.einsum("blhk,bmhk->bhlm", q, k, preferred_element_type=jnp.float32)  # [B, H, L, M]
    if bias is not None:
        scores = scores + bias_by_pair(bias, length, k.shape[1])  # [B, H, L, M]
    mask = segment_mask(query_segments, key_segments)  # [B, L, M]
    if causal:
        mask &= causal_mask(length)  # [B, L, M]
    scores = jnp.where(mask[:, None], scores, MASKED)  # [B, H, L, M]
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)  # [B, H, L, M]
    weights = dropout(weights, dropout_rate, key)  # [B, H, L, M]
    y = jnp.einsum("bhlm,bmhk->blhk", weights, v)  # [B, L, H, K]
    return y.reshape(batch, length, -1)  # [B, L, H * K]


def can_fuse(q: jax.Array, k: jax.Array, num_heads: int, has_bias: bool) -> bool:
    """Whether `fused_attention_on_mesh` can be used for these shapes on the mesh's devices."""
    if not has_kernels():
        return False
    mesh = current_mesh()
    row_shards, head_shards = batch_shards(mesh.shape), mesh.shape[MODEL]
    if q.shape[0] % row_shards or num_heads % head_shards:
        return False
    local_shape = q.shape[0] // row_shards, q.shape[1], q.shape[2] // head_shards
    tiling = choose_tiling(local_shape, k.shape[1], num_heads // head_shards)
    needed = tiling.vmem_bytes(q.dtype.itemsize, has_bias)
    return needed <= pltpu.get_tpu_info().vmem_capacity_bytes * 7 // 8


def fused_attention_on_mesh(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array | None,
    query_segments: jax.Array,
    key_segments: jax.Array,
    *,
    num_heads: int,
    causal: bool,
    interpret: bool = False,
) -> jax.Array:
    """`fused_attention`, by each device for its own batch rows and heads."""
    mesh = current_mesh()
    attend = functools.partial(
        fused_attention,
        num_heads=num_heads // mesh.shape[MODEL],
        causal=causal,
        interpret=interpret,
    )
    rows, heads = PartitionSpec(BATCH), PartitionSpec(MODEL)
    both = PartitionSpec(BATCH, None, MODEL)
    return jax.shard_map(
        attend,
        mesh=mesh,
        in_specs=(both, both, both, heads, rows, rows),
        out_specs=both,
        check_vma=False,  # a Pallas call does not say over which axes its results vary
    )(q, k, v, bias, query_segments, key_segments)


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
