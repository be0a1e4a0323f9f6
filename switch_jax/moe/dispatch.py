"""Moving rows between token order and slot order: a gather whose backward is a gather too."""

import jax
import jax.numpy as jnp

from switch_jax.moe.routing import Assignment


@jax.custom_vjp
def permute(rows: jax.Array, source: jax.Array, destination: jax.Array) -> jax.Array:
    """Row i of the result is `rows[source[i]]`, or zeros where `source[i]` is out of range.

    `source` and `destination` are inverse partial maps: source[i] = j if and only if
    destination[j] = i. So the gradient is the same gather with the maps swapped, where autodiff
    would scatter.

    Args:
      rows: [N, D].
      source: [M] integers, N where there is no source.
      destination: [N] integers, M where there is no destination.

    Returns:
      [M, D].
    """
    return rows.at[source].get(mode="fill", fill_value=0)


def _permute_fwd(
    rows: jax.Array, source: jax.Array, destination: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return permute(rows, source, destination), (source, destination)


def _permute_bwd(
    maps: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, None, None]:
    source, destination = maps
    return permute(cotangent, destination, source), None, None


permute.defvjp(_permute_fwd, _permute_bwd)


def flat_maps(assignment: Assignment) -> tuple[jax.Array, jax.Array]:
    """The two maps of all groups as one pair of row numbers, slots in expert-major order.

    Expert-major, so that the rows for one expert of all groups lie together and the exchange over
    the mesh moves whole blocks without a transposition.

    Returns:
      token_of_slot: [E * G * C], row in the flattened [G * S] tokens, G * S where empty.
      slot_of_token: [G * S], row in the flattened [E, G, C] slots, E * G * C where dropped.
    """
    groups, experts, slots = assignment.token.shape
    tokens = assignment.expert.shape[1]
    group = jnp.arange(groups, dtype=jnp.int32)[:, None]

    token = assignment.token.transpose(1, 0, 2)  # [E, G, C]
    token_of_slot = jnp.where(token < tokens, token + group * tokens, groups * tokens)

    row = (assignment.expert * groups + group) * slots + assignment.slot
    slot_of_token = jnp.where(assignment.slot < slots, row, experts * groups * slots)
    return token_of_slot.reshape(-1), slot_of_token.reshape(-1)
