"""Multi-head attention as T5 has it: no scaling, and relative positions as an additive bias."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec

from switch_jax.config import ModelConfig
from switch_jax.kernels.attention_kernel import MASKED, fused_attention
from switch_jax.kernels.attention_sizes import cut
from switch_jax.model import parameters
from switch_jax.model.layers import dropout
from switch_jax.partitioning.mesh import BATCH, MODEL, batch_shards, current_mesh, tpu_generation


class Attention(nnx.Module):
    """Kernels are [D, H * K] matrices: what a TPU lays out well and Adafactor factors rightly."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        dim, inner = config.embed_dim, config.num_heads * config.head_dim
        scale = config.scale
        into, out = ("embed", "heads"), ("heads", "embed")
        # The 1 / sqrt(K) of dot-product attention is in the query's initialisation.
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
          query_segments, key_segments: [B, L], [B, M] int32: a token sees those of its own segment;
            0 = padding, which none sees.
          bias: [H, 2 W] float32, added to the scores by query-minus-key distance, from -W to
            W - 1. W is at least L and M, and on TPU a multiple of 128; see `RelativePositionBias`.
          causal: a token sees none to its right.
          key: for dropout on the attention weights; None = none.

        Returns:
          [B, L, D].
        """
        q = x @ self.query[...].astype(x.dtype)
        k, v = self.keys_and_values(memory)
        rate = 0.0 if key is None else self.config.dropout_rate
        arrays = q, k, v, bias, query_segments, key_segments
        heads = self.config.num_heads
        if rate == 0 and can_fuse(q, k, heads, bias is not None):
            mixed = fused(*arrays, num_heads=heads, causal=causal)
        else:
            mixed = plain(*arrays, num_heads=heads, causal=causal, dropout_rate=rate, key=key)
        return mixed @ self.out[...].astype(x.dtype)

    def keys_and_values(self, memory: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[..., D] -> twice [..., H * K]: what `read` and `step` attend to."""
        k, v = (memory @ kernel[...].astype(memory.dtype) for kernel in (self.key, self.value))
        return k, v

    def read(
        self, x: jax.Array, keys: jax.Array, values: jax.Array, key_segments: jax.Array
    ) -> jax.Array:
        """Cross-attention to keys and values that were computed before.

        Args:
          x: [B, L, D] queries.
          keys, values: [B, M, H * K].
          key_segments: [B, M] int32: 1, or 0 for padding.

        Returns:
          [B, L, D].
        """
        q = x @ self.query[...].astype(x.dtype)
        ones = jnp.ones(x.shape[:2], key_segments.dtype)
        heads = self.config.num_heads
        mixed = plain(
            q, keys, values, None, ones, key_segments, num_heads=heads, causal=False
        )  # fmt: skip
        return mixed @ self.out[...].astype(x.dtype)

    def step(
        self, x: jax.Array, keys: jax.Array, values: jax.Array, bias: jax.Array, position: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Self-attention of one new token of each beam to those before it and to itself.

        Args:
          x: [B, beams, D].
          keys, values: [B, beams, L, H * K], of which those before `position` count.
          bias: [H, 2 W] float32 as `__call__` takes it; W is at least L.
          position: scalar int32, of the new token: from 0 to L - 1.

        Returns:
          [B, beams, D], and key and value of the new token, each [B, beams, H * K].
        """
        batch, beams, length, _ = keys.shape
        new_keys, new_values = self.keys_and_values(x)
        q, k, v = x @ self.query[...].astype(x.dtype), new_keys, new_values
        q, k, v = (y.reshape(batch, beams, self.config.num_heads, -1) for y in (q, k, v))
        keys, values = (y.reshape(batch, beams, length, *q.shape[2:]) for y in (keys, values))
        before = jnp.einsum("bnhk,bnlhk->bnhl", q, keys, preferred_element_type=jnp.float32)
        itself = jnp.einsum("bnhk,bnhk->bnh", q, k, preferred_element_type=jnp.float32)
        # From the right to the left, distance falls by 1 from `position`, that of the first key.
        width = bias.shape[1] // 2
        by_key = jax.lax.dynamic_slice_in_dim(bias[:, ::-1], width - 1 - position, length, axis=1)
        before = jnp.where(jnp.arange(length) < position, before + by_key, MASKED)
        scores = jnp.concatenate([before, (itself + bias[:, width])[..., None]], axis=-1)
        weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
        mixed = jnp.einsum("bnhl,bnlhk->bnhk", weights[..., :-1], values) + weights[..., -1:] * v
        y = mixed.reshape(batch, beams, -1) @ self.out[...].astype(x.dtype)
        return y, (new_keys, new_values)


def plain(
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
    """What `kernels.attention_kernel.fused_attention` does, for any platform, and dropout."""
    batch, length, _ = q.shape
    q, k, v = (x.reshape(batch, x.shape[1], num_heads, -1) for x in (q, k, v))
    scores = jnp.einsum("blhk,bmhk->bhlm", q, k, preferred_element_type=jnp.float32)
    if bias is not None:
        scores = scores + by_pair(bias, length, k.shape[1])
    mask = segment_mask(query_segments, key_segments)
    if causal:
        mask &= causal_mask(length)
    scores = jnp.where(mask[:, None], scores, MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
    weights = dropout(weights, dropout_rate, key)
    return jnp.einsum("bhlm,bmhk->blhk", weights, v).reshape(batch, length, -1)


def can_fuse(q: jax.Array, k: jax.Array, num_heads: int, has_bias: bool) -> bool:
    """Whether there is a kernel for these shapes on the mesh's devices; see `fused`."""
    if tpu_generation() < 4:  # up to v3, kernels cannot multiply bfloat16
        return False
    mesh = current_mesh()
    rows, heads = batch_shards(mesh.shape), mesh.shape[MODEL]
    if q.shape[0] % rows or num_heads % heads:
        return False
    shape = q.shape[0] // rows, q.shape[1], q.shape[2] // heads
    needed = cut(shape, k.shape[1], num_heads // heads).vmem_bytes(q.dtype.itemsize, has_bias)
    return needed <= pltpu.get_tpu_info().vmem_capacity_bytes * 7 // 8


def fused(
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
    """`fused_attention` by each device for its own batch rows and heads."""
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


def by_pair(bias: jax.Array, length: int, memory: int) -> jax.Array:
    """[H, 2 W] by query-minus-key distance, from -W to W - 1 -> [H, L, M].

    By key minus query, row l of the result starts at distance -l. Rows that are one longer than the
    shift from each to the next, laid end to end and cut again, do that without a gather, whose
    gradient would be a scatter.
    """
    start = bias.shape[1] // 2 - length
    if start < 0 or bias.shape[1] < 2 * memory:
        raise ValueError(f"a bias of width {bias.shape[1]} is too short for {length} x {memory}")
    bias = bias[:, ::-1][:, start : start + length + memory - 1]
    heads, distances = bias.shape
    rows = jnp.pad(bias, ((0, 0), (0, 1)))[:, None]
    rows = jnp.broadcast_to(rows, (heads, length, distances + 1)).reshape(heads, -1)
    rows = rows[:, length - 1 : length - 1 + length * distances]
    return rows.reshape(heads, length, distances)[:, :, :memory]


def segment_mask(query_segments: jax.Array, key_segments: jax.Array) -> jax.Array:
    """[B, L], [B, M] segments (0 = padding) -> [B, L, M] bool: the same one, not padding."""
    same = query_segments[:, :, None] == key_segments[:, None, :]
    return same & (key_segments != 0)[:, None, :]


def causal_mask(length: int) -> jax.Array:
    """[1, L, L] bool: the key is not to the right of the query."""
    position = jnp.arange(length)
    return (position[:, None] >= position[None, :])[None]
