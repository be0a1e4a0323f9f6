"""Moving rows between token order and slot order: gathers whose backward passes are gathers too."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from switch_jax.moe.routing import Assignment


class Maps(NamedTuple):
    """Row numbers of all groups at once, slots in expert-major order; inverse partial maps.

    Expert-major, so that the rows for one expert of all groups lie together and the exchange over
    the mesh moves whole blocks without a transposition. Where there is no source, the number is
    that of the row after the last.

    Attributes:
      token_of_slot: [E * G * C], row in the flattened [B * L] tokens.
      slot_of_token: [B, L], row in the flattened [E, G, C] slots.
    """

    token_of_slot: jax.Array
    slot_of_token: jax.Array


def flat_maps(assignment: Assignment, rows: tuple[int, int]) -> Maps:
    """The two maps of each group as one pair; `rows` is (B, L) of the tokens."""
    groups, experts, slots = assignment.token.shape
    tokens = assignment.expert.shape[1]
    group = jnp.arange(groups, dtype=jnp.int32)[:, None]
    token, slot = assignment.token, assignment.slot
    token = jnp.where(token < tokens, token + group[..., None] * tokens, groups * tokens)
    row = (assignment.expert * groups + group) * slots + slot
    row = jnp.where(slot < slots, row, experts * groups * slots)
    return Maps(token.transpose(1, 0, 2).reshape(-1), row.reshape(rows))


def _rows(array: jax.Array, numbers: jax.Array) -> jax.Array:
    """Rows of a matrix; of a number beyond the last, the last one. None is negative."""
    return array.at[numbers].get(mode="clip", wrap_negative_indices=False)


# Elementwise work is done on [B, L, D], as before and after the layer: a TPU's compiler does not
# fuse across a reshape, though it moves nothing.


@jax.custom_vjp
def dispatch(tokens: jax.Array, maps: Maps) -> jax.Array:
    """[B, L, D] tokens -> [E * G * C, D] slots; an empty slot holds any token.

    What an empty slot gives is read by nobody: `combine` fetches filled slots only, and sends
    empty ones a gradient of 0. Writing zeros there would be one more pass over the rows.
    """
    return _rows(tokens.reshape(-1, tokens.shape[-1]), maps.token_of_slot)


def _dispatch_fwd(tokens: jax.Array, maps: Maps):
    return dispatch(tokens, maps), maps


def _dispatch_bwd(maps: Maps, cotangent: jax.Array):
    rows = _rows(cotangent, maps.slot_of_token.reshape(-1))
    kept = maps.slot_of_token < len(cotangent)
    return jnp.where(kept[..., None], rows.reshape(*kept.shape, -1), 0), None


dispatch.defvjp(_dispatch_fwd, _dispatch_bwd)


@jax.custom_vjp
def combine(slots: jax.Array, gate: jax.Array, maps: Maps) -> jax.Array:
    """[E * G * C, D] slots -> [B, L, D] tokens, each times its gate (Eq. 2).

    Args:
      slots: what the experts made of the rows that `dispatch` gave.
      gate: [B, L] float32, 0 for a token without a slot.
      maps: as for `dispatch`.
    """
    return _combine_fwd(slots, gate, maps)[0]


def _combine_fwd(slots: jax.Array, gate: jax.Array, maps: Maps):
    # Behind a barrier: else a float32 copy would be kept for the backward pass.
    rows = lax.optimization_barrier(_rows(slots, maps.slot_of_token.reshape(-1)))
    fetched = rows.reshape(*gate.shape, -1)
    return _gated(fetched, gate), (fetched, gate, maps)


def _combine_bwd(residuals: tuple[jax.Array, jax.Array, Maps], cotangent: jax.Array):
    (fetched, gate, maps), cotangent = lax.optimization_barrier((residuals, cotangent))
    # Before the gather: one pass with the sum below, where after it would be a pass of its own.
    gated = _gated(cotangent, gate).reshape(-1, cotangent.shape[-1])
    filled = maps.token_of_slot < len(gated)
    rows = jnp.where(filled[:, None], _rows(gated, maps.token_of_slot), 0)
    product = cotangent.astype(jnp.float32) * fetched.astype(jnp.float32)
    return rows, jnp.sum(product, axis=-1), None


combine.defvjp(_combine_fwd, _combine_bwd)


def _gated(rows: jax.Array, gate: jax.Array) -> jax.Array:
    return (rows.astype(jnp.float32) * gate[..., None]).astype(rows.dtype)
