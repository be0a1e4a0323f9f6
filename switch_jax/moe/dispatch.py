"""Moving rows between token order and slot order: gathers whose backward passes are gathers too."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from switch_jax.moe.routing import Assignment


class Maps(NamedTuple):
    """Row numbers of all groups at once, slots in expert-major order; inverse partial maps.

    Expert-major, so that the rows for one expert of all groups lie together and the exchange over
    the mesh moves whole blocks without a transposition. The numbers are in range everywhere;
    where there is no source, the row they name is any row.

    Attributes:
      token_of_slot: [E * G * C], row in the flattened [G * S] tokens.
      slot_of_token: [G * S], row in the flattened [E, G, C] slots.
      filled: [E * G * C] bool, whether the slot has a token.
      kept: [G * S] bool, whether the token has a slot.
    """

    token_of_slot: jax.Array
    slot_of_token: jax.Array
    filled: jax.Array
    kept: jax.Array


def flat_maps(assignment: Assignment) -> Maps:
    """The two maps of each group as one pair."""
    groups, _, slots = assignment.token.shape
    tokens = assignment.expert.shape[1]
    group = jnp.arange(groups, dtype=jnp.int32)[:, None]

    token = assignment.token.transpose(1, 0, 2)  # [E, G, C]
    filled = token < tokens
    token_of_slot = jnp.minimum(token, tokens - 1) + group * tokens

    kept = assignment.slot < slots
    row = (assignment.expert * groups + group) * slots
    slot_of_token = row + jnp.minimum(assignment.slot, slots - 1)
    return Maps(*(m.reshape(-1) for m in (token_of_slot, slot_of_token, filled, kept)))


def _rows(array: jax.Array, numbers: jax.Array) -> jax.Array:
    return array.at[numbers].get(mode="promise_in_bounds")


@jax.custom_vjp
def dispatch(tokens: jax.Array, maps: Maps) -> jax.Array:
    """[G * S, D] tokens -> [E * G * C, D] slots; an empty slot holds any token.

    What an empty slot gives is read by nobody: `combine` fetches filled slots only, and sends
    empty ones a gradient of 0. Writing zeros there would be one more pass over the rows.
    """
    return _rows(tokens, maps.token_of_slot)


def _dispatch_fwd(tokens: jax.Array, maps: Maps):
    return dispatch(tokens, maps), maps


def _dispatch_bwd(maps: Maps, cotangent: jax.Array):
    return jnp.where(maps.kept[:, None], _rows(cotangent, maps.slot_of_token), 0), None


dispatch.defvjp(_dispatch_fwd, _dispatch_bwd)


@jax.custom_vjp
def combine(slots: jax.Array, gate: jax.Array, maps: Maps) -> jax.Array:
    """[E * G * C, D] slots -> [G * S, D] tokens, each times its gate (Eq. 2).

    Args:
      slots: what the experts made of the rows that `dispatch` gave.
      gate: [G * S] float32, 0 for a token without a slot.
      maps: as for `dispatch`.
    """
    return _gated(_rows(slots, maps.slot_of_token), gate)


def _combine_fwd(slots: jax.Array, gate: jax.Array, maps: Maps):
    fetched = _rows(slots, maps.slot_of_token)
    return _gated(fetched, gate), (fetched, gate, maps)


def _combine_bwd(residuals: tuple[jax.Array, jax.Array, Maps], cotangent: jax.Array):
    fetched, gate, maps = residuals
    # Before the gather: one pass with the sum below, where after it would be a pass of its own.
    rows = _rows(_gated(cotangent, gate), maps.token_of_slot)
    rows = jnp.where(maps.filled[:, None], rows, 0)
    product = cotangent.astype(jnp.float32) * fetched.astype(jnp.float32)
    return rows, jnp.sum(product, axis=-1), None


combine.defvjp(_combine_fwd, _combine_bwd)


def _gated(rows: jax.Array, gate: jax.Array) -> jax.Array:
    return (rows.astype(jnp.float32) * gate[:, None]).astype(rows.dtype)
