"""The Switch feed-forward layer (Fig. 2): router, all-to-all, experts, all-to-all, gate.

Written once, for one device's share of the batch and of the experts, and run under `jax.shard_map`
on whatever mesh there is; a single device is a mesh of one. The shape letters are those of
`switch_jax.moe`. A suffix `_local` marks one device's share of an axis.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from switch_jax.config import ModelConfig
from switch_jax.moe.capacity import capacity_of, group_shape
from switch_jax.moe.dispatch import combine, dispatch, dispatch_indices, in_chunks
from switch_jax.moe.divisibility import check_divisibility
from switch_jax.moe.exchange import all_to_all, num_chunks, num_expert_shards
from switch_jax.moe.expert_dropout import expert_dropout
from switch_jax.moe.expert_mlp import expert_mlp, local_experts
from switch_jax.moe.expert_weights import SwitchWeights, cast, partition_specs
from switch_jax.moe.experts_choose import ChosenTokens, add_slots, gather_tokens
from switch_jax.moe.random_streams import RouterKey, Stream
from switch_jax.moe.router import router_logits
from switch_jax.moe.routing import route_tokens
from switch_jax.moe.slots import Assignment
from switch_jax.moe.statistics import RouterStatistics, router_statistics
from switch_jax.partitioning.collectives import axis_index, drop_axes_of_one, mark_varying
from switch_jax.partitioning.mesh import BATCH, DATA, EXPERT, current_mesh


def switch_ffn(
    x: jax.Array,
    valid: jax.Array,
    weights: SwitchWeights,
    config: ModelConfig,
    activation: Callable[..., jax.Array],
    *,
    group_size: int,
    capacity_factor: float,
    router_type: str = "tokens_choose",
    key: jax.Array | None = None,
    router_index: Any = 0,
) -> tuple[jax.Array, RouterStatistics]:
    """Sends each token through its most probable expert (sections 2.1 and 2.2).

    With the policy 'sample' it is an expert that is drawn (App. C). With `num_selected_experts`
    above 1 it is several, whose outputs are added.

    The result is the same on every mesh: groups depend on the batch alone, and noise on the
    indices of router, group and expert alone.

    Args:
      x: [B, L, D] activations; the exchanged rows and the experts have the same dtype.
      valid: [B, L] bool, False on padding, which takes no slot and counts in no statistic.
      weights: `wi` and `wo` are cast to x's dtype; the router computes in the dtype of its own.
        With a `router_bias` the gradient of the statistic `load_balance_loss` is not that of the
        loss, but what the bias is updated by; see `auxiliary_losses.with_bias_gradient`.
      config: its experts, policies, noise and expert dropout.
      activation: from the projections by each `wi` to the hidden activation, elementwise.
      group_size: the largest number of tokens routed together; see `capacity.group_shape`.
      capacity_factor: see `capacity.expert_capacity` (Eq. 3).
      router_type: who chooses whom; see `ModelConfig.router_types`.
      key: for the policies, jitter and expert dropout; None = argmax, all choices, and no noise
        (evaluation).
      router_index: routers with the same key and different indices have different noise.

    Returns:
      [B, L, D], or as wide as `wo` gives it, exactly 0 for dropped tokens and padding (the residual
      connection carries them), and the router's statistics.

    Raises:
      UserError: the experts or the groups do not divide over the mesh, or `group_size` does not
        fit the rows.
      ValueError: B does not divide over data x expert devices (from `jax.shard_map`).
    """
    mesh = current_mesh()
    batch, length, _ = x.shape
    check_divisibility(batch, length, config.num_experts, group_size, mesh.shape, "group_size")
    by_rows, whole = PartitionSpec(BATCH), PartitionSpec()
    in_specs = by_rows, by_rows, partition_specs(weights, mesh.shape), whole, whole
    layer = jax.shard_map(
        functools.partial(
            _switch_ffn_local,
            config=config,
            activation=activation,
            group_size=group_size,
            capacity_factor=capacity_factor,
            router_type=router_type,
        ),
        mesh=mesh,
        in_specs=drop_axes_of_one(in_specs, mesh.shape),
        out_specs=drop_axes_of_one((by_rows, whole), mesh.shape),
        check_vma=True,
    )
    return layer(x, valid, cast(weights, x.dtype), key, jnp.asarray(router_index, jnp.int32))


def _switch_ffn_local(
    x: jax.Array,
    valid: jax.Array,
    weights: SwitchWeights,
    key: jax.Array | None,
    router_index: jax.Array,
    *,
    config: ModelConfig,
    activation: Callable[..., jax.Array],
    group_size: int,
    capacity_factor: float,
    router_type: str,
) -> tuple[jax.Array, RouterStatistics]:
    """One device's part: its rows of the batch, its experts, its slice of F."""
    batch, length, dim = x.shape
    groups, tokens = group_shape(batch, length, group_size)  # G_local, S
    # Rows of the batch or, where a row is several groups, the groups as rows, of S tokens.
    row_length = min(length, tokens)
    batch_shape = batch * length // row_length, row_length
    x = x.reshape(*batch_shape, dim)  # [rows, row_length, D]
    valid = valid.reshape(groups, tokens)  # [G_local, S]
    expert_shards = num_expert_shards(config.num_experts)
    capacity = capacity_of(config, tokens, capacity_factor)
    router_key = None
    if key is not None:
        # The index of the first group in the whole batch: noise depends on it, not on the device.
        device = axis_index(DATA) * lax.axis_size(EXPERT) + axis_index(EXPERT)
        router_key = RouterKey(key, router_index, device * groups, tokens)
    chunks = num_chunks(expert_shards, groups * capacity)
    dropout = None
    if router_key is not None and config.expert_dropout > 0:
        chunks = 1  # dropout is drawn for all slots of an expert at once
        dropout = expert_dropout(
            config.expert_dropout,
            router_key.key(Stream.EXPERT_DROPOUT),
            expert_shards=expert_shards,
            groups=groups,
            capacity=capacity,
        )

    with jax.named_scope("router"):
        jitter, dropout_rate, bits = config.jitter_noise, config.router_input_dropout, None
        if router_key is not None and (jitter > 0 or dropout_rate > 0):
            bits = router_key.bits(Stream.ROUTER_INPUT, x.shape)
        router = mark_varying(weights.router, BATCH)  # [D, E]
        logits = router_logits(x, router, jitter, bits, dropout_rate)  # [rows, row_length, E]
        logits = logits.reshape(groups, tokens, -1)  # [G_local, S, E]
        bias = weights.router_bias  # [E] or None
        if bias is not None:
            bias = mark_varying(bias, BATCH)
        assignment = route_tokens(logits, bias, valid, capacity, config, router_type, router_key)
        statistics = router_statistics(assignment, valid, bias)

    with jax.named_scope("dispatch"):
        to_slots, to_tokens = _moves(assignment, batch_shape, chunks)
        # Block i of axis 0 is for the experts of the i-th device.
        slots_in_chunk = groups * capacity // chunks  # of one expert
        shape = expert_shards, config.num_experts // expert_shards, slots_in_chunk, dim
        # After the exchange, block i of axis 0 is from the i-th device.
        buffers = [
            all_to_all(chunk.reshape(shape)) for chunk in to_slots(x)
        ]  # [expert_shards, E_local, G_local * C / chunks, D] each

    with jax.named_scope("experts"):
        weights = local_experts(weights, expert_shards)
        buffers = [expert_mlp(chunk, weights, activation, dropout) for chunk in buffers]

    with jax.named_scope("dispatch"):
        buffers = [all_to_all(chunk) for chunk in buffers]
        slots = tuple(
            chunk.reshape(-1, chunk.shape[-1]) for chunk in buffers
        )  # [E * G_local * C / chunks, D] each
        y = to_tokens(slots)  # [rows, row_length, D]
    return y.reshape(batch, length, y.shape[-1]), statistics


def _moves(
    assignment: Assignment | ChosenTokens, batch_shape: tuple[int, int], chunks: int
) -> tuple[Callable, Callable]:
    """From tokens [B, L, D] to the slots of each chunk, and from these to tokens again."""
    if isinstance(assignment, ChosenTokens):
        groups, _, tokens = assignment.is_taken.shape
        first_row = tokens * jnp.arange(groups, dtype=jnp.int32)[:, None, None]  # [G, 1, 1]
        is_filled = assignment.token_index < tokens  # [G, E, C]
        row = jnp.where(is_filled, first_row + assignment.token_index, groups * tokens)
        rows, slot_gates = in_chunks(row, chunks), in_chunks(assignment.gate, chunks)
        return (
            lambda x: gather_tokens(x, rows),
            lambda slots: add_slots(slots, slot_gates, rows, batch_shape),
        )
    indices = dispatch_indices(assignment, batch_shape, chunks)
    gates = jnp.unstack(assignment.gate, axis=1)  # [G, S] each
    gates = tuple(gate.reshape(batch_shape) for gate in gates)  # [B, L] each
    return lambda x: dispatch(x, indices), lambda slots: combine(slots, gates, indices)
