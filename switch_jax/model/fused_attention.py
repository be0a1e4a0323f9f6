"""Attention that writes no scores to memory: a kernel of our own on TPUs, cuDNN's on NVIDIA GPUs.

Each has the arguments and the result of `kernels.attention_kernel.fused_attention`.
"""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec

from switch_jax.config import ModelConfig
from switch_jax.kernels.attention_kernel import MASKED, fused_attention
from switch_jax.kernels.attention_sizes import choose_tiling
from switch_jax.model.dot_product_attention import bias_by_pair, causal_mask, segment_mask
from switch_jax.partitioning.mesh import (
    BATCH,
    MODEL,
    batch_shards,
    current_mesh,
    has_kernels,
    platform,
)


def fused_kernel(
    config: ModelConfig, q: jax.Array, k: jax.Array, has_bias: bool
) -> Callable[..., jax.Array] | None:
    """The kernel for these shapes on the mesh's devices; None = they have none.

    Args:
      config: the model's; `gpu_attention` says whether GPUs may use cuDNN's.
      q, k: [B, L, H * K], [B, M, H * K].
      has_bias: whether a bias is added to the scores.
    """
    mesh = current_mesh()
    row_shards, head_shards = batch_shards(mesh.shape), mesh.shape[MODEL]
    if q.shape[0] % row_shards or config.num_heads % head_shards:
        return None
    if has_kernels():
        local_shape = q.shape[0] // row_shards, q.shape[1], q.shape[2] // head_shards
        tiling = choose_tiling(local_shape, k.shape[1], config.num_heads // head_shards)
        needed = tiling.vmem_bytes(q.dtype.itemsize, has_bias)
        fits = needed <= pltpu.get_tpu_info().vmem_capacity_bytes * 7 // 8
        return fused_attention if fits else None
    if platform() == "gpu" and config.gpu_attention == "cudnn":
        # What cuDNN has no gradient for, or none for all GPUs since Ampere.
        odd = q.shape[1] % 2 or k.shape[1] % 2
        known = q.dtype == jnp.bfloat16 and config.head_dim % 8 == 0 and config.head_dim <= 128
        return cudnn_attention if known and not odd else None
    return None


def on_mesh(kernel: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The kernel, run by each device for its own batch rows and heads."""

    def attend(
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        bias: jax.Array | None,
        query_segments: jax.Array,
        key_segments: jax.Array,
        *,
        num_heads: int,
        causal: bool,
    ) -> jax.Array:
        mesh = current_mesh()
        local = functools.partial(kernel, num_heads=num_heads // mesh.shape[MODEL], causal=causal)
        rows, heads = PartitionSpec(BATCH), PartitionSpec(MODEL)
        both = PartitionSpec(BATCH, None, MODEL)
        return jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(both, both, both, heads, rows, rows),
            out_specs=both,
            check_vma=False,  # a kernel does not say over which axes its results vary
        )(q, k, v, bias, query_segments, key_segments)

    return attend


def cudnn_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array | None,
    query_segments: jax.Array,
    key_segments: jax.Array,
    *,
    num_heads: int,
    causal: bool,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    """`fused_attention` by cuDNN: bfloat16, L and M even, K a multiple of 8 and at most 128.

    cuDNN takes bias and masks as one array [B, H, L, M], here in bfloat16, and gives its gradient
    in the same form; the scores, and their gradients, stay on the chip. A query that sees no key
    gets the mean of all values here, too. Its gradient reaches q and k; in the model it is zero,
    since nothing depends on such a query.

    Args:
      implementation: of `jax.nn.dot_product_attention`; 'xla' runs on any device, for tests.
    """
    batch, length, _ = q.shape
    q, k, v = (x.reshape(batch, x.shape[1], num_heads, -1) for x in (q, k, v))  # [B, L or M, H, K]
    pairs = jnp.zeros((1, length, k.shape[1]))  # [1 or H, L, M]
    if bias is not None:
        pairs = bias_by_pair(bias, length, k.shape[1])
    mask = segment_mask(query_segments, key_segments)  # [B, L, M]
    if causal:
        mask &= causal_mask(length)  # [B, L, M]
    pairs = jnp.where(mask[:, None], pairs, MASKED)  # [B, 1 or H, L, M]
    y = jax.nn.dot_product_attention(
        q,
        k,
        v,
        # With a bias in float32 its gradients are NaN (jax issue 32242).
        pairs.astype(q.dtype),
        scale=1.0,
        implementation=implementation,
    )  # [B, L, H, K]
    return y.reshape(batch, length, -1)  # [B, L, H * K]
