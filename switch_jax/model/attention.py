"""Multi-head attention as T5 has it: no scaling, and relative positions as an additive bias."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec

from switch_jax.kernels.attention import MASKED, fused_attention
from switch_jax.kernels.attention_sizes import cut
from switch_jax.model import parameters
from switch_jax.model.config import ModelConfig
from switch_jax.model.layers import dropout
from switch_jax.partitioning.mesh import BATCH, MODEL, batch_shards, current_mesh, tpu_generation


class Attention(nnx.Module):
    """Kernels are [D, H * K] matrices: what a TPU lays out well and Adafactor factors rightly."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        dim, inner = config.d_model, config.num_heads * config.d_kv
        scale = config.init_scale
        into, out = ("embed", "heads"), ("heads", "embed")
        # The 1 / sqrt(K) of dot-product attention is in the query's initialisation.
        query_variance = scale / (dim * config.d_kv)
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
        k, v = (memory @ kernel[...].astype(x.dtype) for kernel in (self.key, self.value))
        rate = 0.0 if key is None else self.config.dropout_rate
        arrays = q, k, v, bias, query_segments, key_segments
        heads = self.config.num_heads
        if rate == 0 and can_fuse(q, k, heads, bias is not None):
            mixed = fused(*arrays, num_heads=heads, causal=causal)
        else:
            mixed = plain(*arrays, num_heads=heads, causal=causal, dropout_rate=rate, key=key)
        return mixed @ self.out[...].astype(x.dtype)


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
    """What `kernels.attention.fused_attention` does, for any platform, and dropout."""
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
