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
from switch_jax.kernels.attention_kernel import fused_attention
from switch_jax.kernels.attention_sizes import choose_tiling
from switch_jax.model.dot_product_attention import bias_by_pair, causal_mask, segment_mask
from switch_jax.partitioning.devices import device_kind, has_kernels
from switch_jax.partitioning.mesh import (
    BATCH,
    MODEL,
    batch_shards,
    current_mesh,
)


def fused_kernel(
    config: ModelConfig, q: jax.Array, k: jax.Array, has_bias: bool
) -> Callable[..., jax.Array] | None:
    """The kernel for q [B, L, H * K] and k [B, M, H * K] on the mesh's devices; None = none has it.

    `has_bias`: a bias is added to the scores. GPUs use cuDNN's where `gpu_attention` allows it. A
    kernel needs whole heads on each device, of keys and values, too.
    """
    mesh = current_mesh()
    row_shards, head_shards = batch_shards(mesh.shape), mesh.shape[MODEL]
    if q.shape[0] % row_shards or config.key_value_heads % head_shards:
        return None
    if has_kernels():
        local_shape = q.shape[0] // row_shards, q.shape[1], q.shape[2] // head_shards
        tiling = choose_tiling(local_shape, k.shape[1], config.num_heads // head_shards)
        needed = tiling.vmem_bytes(q.dtype.itemsize, has_bias)
        fits = needed <= pltpu.get_tpu_info().vmem_capacity_bytes * 7 // 8
        return fused_attention if fits else None
    if config.gpu_attention == "cudnn" and "NVIDIA" in device_kind():
        return cudnn_attention if suits_cudnn(config, q.shape[1], k.shape[1]) else None
    return None


def suits_cudnn(config: ModelConfig, length: int, num_keys: int) -> bool:
    """Whether cuDNN has this attention, with its gradients, on all GPUs since Ampere.

    As `jax.nn.dot_product_attention` checks: bfloat16, a head size of at most 128 and a multiple of
    8, and even lengths, which the gradient of a bias needs. With 64 keys beyond a multiple of 128,
    H100s with some versions of cuDNN give NaN for queries whose scores are all very low
    (NVIDIA/cudnn-frontend pull request 628).
    """
    is_bfloat16 = config.activation_dtype == "bfloat16"
    is_head_size_known = config.head_dim % 8 == 0 and config.head_dim <= 128
    are_lengths_even = length % 2 == 0 and num_keys % 2 == 0
    return is_bfloat16 and is_head_size_known and are_lengths_even and num_keys % 128 != 64


def on_mesh(kernel: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The kernel, run by each device for its own batch rows and heads."""

    def attend(*arrays: jax.Array | None, num_heads: int, causal: bool) -> jax.Array:
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
        )(*arrays)

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
    """`fused_attention` by cuDNN, for what `suits_cudnn`.

    cuDNN takes bias and masks as one array [B, H, L, M], here in bfloat16, and gives its gradient
    in the same form; the scores, and their gradients, stay on the chip. It has no gradients for a
    query whose keys are all masked: such a query sees them all here, with equal scores.
    `implementation` 'xla' runs on any device, for tests.
    """
    batch, length, _ = q.shape
    size = q.shape[-1] // num_heads
    q, k, v = (x.reshape(batch, x.shape[1], -1, size) for x in (q, k, v))  # [B, L or M, H, K]
    mask = segment_mask(query_segments, key_segments)  # [B, L, M]
    if causal:
        mask &= causal_mask(length)  # [B, L, M]
    sees = mask.any(-1)  # [B, L]
    q = jnp.where(sees[:, :, None, None], q, 0)  # [B, L, H, K]
    if bias is not None:
        bias = bias_by_pair(bias, length, k.shape[1])  # [H, L, M]
        bias = jnp.where(sees[:, None, :, None], bias, 0)  # [B, H, L, M]
        bias = bias.astype(q.dtype)  # with one in float32 cuDNN gives NaN gradients
    y = jax.nn.dot_product_attention(
        q,
        k,
        v,
        bias,
        (mask | ~sees[:, :, None])[:, None],  # [B, 1, L, M]
        scale=1.0,
        implementation=implementation,
    )  # [B, L, H, K]
    return y.reshape(batch, length, -1)  # [B, L, H * K]
