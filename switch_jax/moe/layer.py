"""The Switch feed-forward layer (Fig. 2): router, all-to-all, experts, all-to-all, gate.

Written once, for one device's share of the batch and of the experts, and run under `jax.shard_map`
on whatever mesh there is; a single device is a mesh of one. The shape letters are those of
`switch_jax.moe`. A suffix `_local` marks one device's share of an axis.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.sharding import PartitionSpec

from switch_jax.moe.capacity import check_divisibility
from switch_jax.moe.exchange import all_to_all, num_chunks, num_expert_shards, saved_sum
from switch_jax.moe.experts import (
    SwitchWeights,
    cast,
    expert_dropout,
    expert_mlp,
    local_experts,
    partition_specs,
)
from switch_jax.moe.random_streams import LayerKey, RouterKey, Stream
from switch_jax.moe.routing import Router
from switch_jax.moe.statistics import RouterStatistics, router_statistics, statistics_specs
from switch_jax.moe.tokens import Tokens
from switch_jax.partitioning.collectives import axis_index, drop_axes_of_one, mark_varying
from switch_jax.partitioning.mesh import ACTIVATIONS, BATCH, DATA, EXPERT, MODEL, current_mesh


def switch_ffn(
    x: jax.Array,
    tokens: Tokens,
    weights: SwitchWeights,
    router: Router,
    activation: Callable[..., jax.Array],
    *,
    training: bool,
    key: LayerKey | None = None,
) -> tuple[jax.Array, RouterStatistics]:
    """Sends each token through its expert, or its experts (sections 2.1 and 2.2).

    The result is the same on every mesh: groups depend on the batch alone, and noise on the
    indices of router, group and expert alone.

    Args:
      x: [B, L, D] activations; the exchanged rows and the experts have the same dtype.
      tokens: [B, L]; padding takes no slot and counts in no statistic.
      weights: `wi` and `wo` are cast to x's dtype; the router computes in the dtype of its own.
        With a bias of the router the gradient of the statistic `load_balance_loss` is not that of
        the loss, but what the bias is updated by; see `losses.with_bias_gradient`.
      router: the routing policy.
      activation: from the projections by each `wi` to the hidden activation, elementwise.
      training: with the capacity factor of training, and not that of evaluation.
      key: for noise in the router and dropout in the experts; None = neither.

    Returns:
      [B, L, D], or as wide as `wo` gives it, exactly 0 for dropped tokens and padding (the residual
      connection carries them), and the router's statistics.

    Raises:
      UserError: the experts or the groups do not divide over the mesh, or the group size does not
        fit the rows.
      ValueError: B does not divide over data x expert devices, or D over the model axis (from
        `jax.shard_map`).
    """
    mesh = current_mesh()
    batch, length, _ = x.shape
    size = router.stack.group_size
    check_divisibility(batch, length, router.config.num_experts, size, mesh.shape, "group_size")
    by_rows, whole = PartitionSpec(BATCH), PartitionSpec()
    in_specs = ACTIVATIONS, by_rows, whole, *partition_specs(weights.num_experts, mesh.shape)
    layer = jax.shard_map(
        functools.partial(
            _switch_ffn_local, router=router, activation=activation, training=training
        ),
        mesh=mesh,
        in_specs=drop_axes_of_one(in_specs, mesh.shape),
        out_specs=drop_axes_of_one((ACTIVATIONS, statistics_specs()), mesh.shape),
        check_vma=True,
    )
    return layer(x, tokens, key, *cast(weights, x.dtype))


def _switch_ffn_local(
    x: jax.Array,
    tokens: Tokens,
    layer_key: LayerKey | None,
    *arrays: Any,
    router: Router,
    activation: Callable[..., jax.Array],
    training: bool,
) -> tuple[jax.Array, RouterStatistics]:
    """One device's part: its rows of the batch, its part of D, its experts, its slice of F."""
    weights, config = SwitchWeights(*arrays), router.config
    batch, length, dim = x.shape
    groups, size = router.group_shape(batch, length)  # G_local, S
    # Rows of the batch or, where a row is several groups, the groups as rows, of S tokens.
    row_length = min(length, size)
    batch_shape = batch * length // row_length, row_length
    x = x.reshape(*batch_shape, dim)  # [rows, row_length, D_local]
    tokens = tokens.in_groups(groups, size)  # [G_local, S]
    expert_shards = num_expert_shards(config.num_experts)
    capacity = router.capacity(size, training=training)
    key = None
    if layer_key is not None:
        # The index of the first group in the whole batch: noise depends on it, not on the device.
        device = axis_index(DATA) * lax.axis_size(EXPERT) + axis_index(EXPERT)
        router_index = router.first_index + layer_key.layer
        key = RouterKey(layer_key.stack_key, router_index, device * groups, size)
    chunks = num_chunks(expert_shards, groups * capacity)
    dropout = None
    if key is not None and config.expert_dropout > 0:
        chunks = 1  # dropout is drawn for all slots of an expert at once
        dropout = expert_dropout(
            config.expert_dropout,
            key.key(Stream.EXPERT_DROPOUT),
            expert_shards=expert_shards,
            groups=groups,
            capacity=capacity,
        )

    with jax.named_scope("router"):
        kernel, bias = jax.tree.map(
            lambda parameter: mark_varying(parameter, BATCH), (weights.router, weights.router_bias)
        )  # [D_local, E], [E] or None
        logits = saved_sum(router.logits(x, kernel, key, (MODEL,)))  # [rows, row_length, E]
        logits = logits.reshape(groups, size, -1)  # [G_local, S, E]
        assignment = router.assign(logits, tokens, bias, capacity, key)
        statistics = router_statistics(assignment, tokens.valid, bias)

    with jax.named_scope("dispatch"):
        dispatch, combine = assignment.dispatch_and_combine(batch_shape, chunks)
        # Block i of axis 0 is for the experts of the i-th device.
        slots_in_chunk = groups * capacity // chunks  # of one expert
        shape = expert_shards, config.num_experts // expert_shards, slots_in_chunk, dim
        # After the exchange, block i of axis 0 is from the i-th device.
        buffers = [
            all_to_all(chunk.reshape(shape)) for chunk in dispatch(x)
        ]  # [expert_shards, E_local, G_local * C / chunks, D_local] each

    with jax.named_scope("experts"):
        weights = local_experts(weights, expert_shards)
        buffers = [expert_mlp(chunk, weights, activation, dropout) for chunk in buffers]

    with jax.named_scope("dispatch"):
        buffers = [all_to_all(chunk) for chunk in buffers]
        slots = tuple(
            chunk.reshape(-1, chunk.shape[-1]) for chunk in buffers
        )  # [E * G_local * C / chunks, D_local] each
        y = combine(slots)  # [rows, row_length, D_local]
    return y.reshape(batch, length, y.shape[-1]), statistics
