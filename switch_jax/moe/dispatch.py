"""Moves rows from token order to slot order and back: gathers whose gradients are gathers too."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from switch_jax.moe.routing import Assignment


class DispatchIndices(NamedTuple):
    """Row numbers over all groups at once, with the slots in the order [E, G, C].

    The two maps are inverse to each other, where a token has a slot and a slot has a token. Where
    it has none, the row number is one past the last row. The expert is the slowest index, so that
    the rows of one expert lie together for all groups, and the all-to-all moves whole blocks
    without a transposition.

    Attributes:
      token_of_slot: [E * G * C] int32, row in the flattened [B * L] tokens.
      slot_of_token: [B, L] int32, row in the flattened [E * G * C] slots.
    """

    token_of_slot: jax.Array
    slot_of_token: jax.Array


def dispatch_indices(assignment: Assignment, batch_shape: tuple[int, int]) -> DispatchIndices:
    """The assignment's maps within each group as maps over all groups; `batch_shape` is (B, L)."""
    groups, experts, capacity = assignment.token_index.shape
    tokens = assignment.expert_index.shape[1]
    group = jnp.arange(groups, dtype=jnp.int32)[:, None]  # [G, 1]
    token, slot = assignment.token_index, assignment.position_in_expert  # [G, E, C], [G, S]
    is_filled = token < tokens  # [G, E, C]
    token_of_slot = jnp.where(
        is_filled, token + group[..., None] * tokens, groups * tokens
    )  # [G, E, C]
    slot_of_token = (assignment.expert_index * groups + group) * capacity + slot  # [G, S]
    is_kept = slot < capacity  # [G, S]
    slot_of_token = jnp.where(is_kept, slot_of_token, experts * groups * capacity)  # [G, S]
    return DispatchIndices(
        token_of_slot.transpose(1, 0, 2).reshape(-1),  # [E * G * C]
        slot_of_token.reshape(batch_shape),  # [B, L]
    )


def _take_rows(array: jax.Array, index: jax.Array) -> jax.Array:
    """Rows of a matrix. An index past the last row gives the last row; there are no negative ones.

    [M, D], [N] -> [N, D].
    """
    return array.at[index].get(mode="clip", wrap_negative_indices=False)


# Elementwise work is done in the shape [B, L, D], as it is before and after the layer: a TPU's
# compiler does not fuse operations across a reshape, even if the reshape moves nothing.


@jax.custom_vjp
def dispatch(tokens: jax.Array, indices: DispatchIndices) -> jax.Array:
    """[B, L, D] tokens -> [E * G * C, D] slots; an empty slot gets the row of any token.

    What the expert computes for an empty slot is never used: `combine` reads filled slots only, and
    gives empty ones a gradient of 0. Writing zeros would be one more pass over the rows.
    """
    rows = tokens.reshape(-1, tokens.shape[-1])  # [B * L, D]
    return _take_rows(rows, indices.token_of_slot)  # [E * G * C, D]


def _dispatch_fwd(tokens: jax.Array, indices: DispatchIndices):
    return dispatch(tokens, indices), indices


def _dispatch_bwd(indices: DispatchIndices, slots_grad: jax.Array):
    slot_of_token = indices.slot_of_token  # [B, L]
    rows = _take_rows(slots_grad, slot_of_token.reshape(-1))  # [B * L, D]
    is_kept = slot_of_token < len(slots_grad)  # [B, L]
    tokens_grad = jnp.where(is_kept[..., None], rows.reshape(*is_kept.shape, -1), 0)  # [B, L, D]
    return tokens_grad, None


dispatch.defvjp(_dispatch_fwd, _dispatch_bwd)


@jax.custom_vjp
def combine(slots: jax.Array, gate: jax.Array, indices: DispatchIndices) -> jax.Array:
    """[E * G * C, D] slots -> [B, L, D] tokens, each multiplied by its gate (Eq. 2).

    Args:
      slots: [E * G * C, D], what the experts computed from the rows that `dispatch` gave.
      gate: [B, L] float32, 0 for a token without a slot.
      indices: the same as for `dispatch`.
    """
    return _combine_fwd(slots, gate, indices)[0]


def _combine_fwd(slots: jax.Array, gate: jax.Array, indices: DispatchIndices):
    rows = _take_rows(slots, indices.slot_of_token.reshape(-1))  # [B * L, D]
    # Behind a barrier: without it a float32 copy would be kept for the backward pass.
    rows = lax.optimization_barrier(rows)
    outputs = rows.reshape(*gate.shape, -1)  # [B, L, D]
    return _times_gate(outputs, gate), (outputs, gate, indices)


def _combine_bwd(residuals: tuple[jax.Array, jax.Array, DispatchIndices], y_grad: jax.Array):
    (outputs, gate, indices), y_grad = lax.optimization_barrier((residuals, y_grad))
    # Multiplied before the gather, in one pass with the sum below; afterwards it would be another
    # pass.
    outputs_grad = _times_gate(y_grad, gate).reshape(-1, y_grad.shape[-1])  # [B * L, D]
    is_filled = indices.token_of_slot < len(outputs_grad)  # [E * G * C]
    slots_grad = jnp.where(
        is_filled[:, None], _take_rows(outputs_grad, indices.token_of_slot), 0
    )  # [E * G * C, D]
    product = y_grad.astype(jnp.float32) * outputs.astype(jnp.float32)  # [B, L, D]
    return slots_grad, jnp.sum(product, axis=-1), None  # [E * G * C, D], [B, L]


combine.defvjp(_combine_fwd, _combine_bwd)


def _times_gate(x: jax.Array, gate: jax.Array) -> jax.Array:
    """[B, L, D], [B, L] -> [B, L, D], multiplied in float32."""
    return (x.astype(jnp.float32) * gate[..., None]).astype(x.dtype)
