"""From choices to slots: which choices of experts find room, and where."""

import jax
import jax.numpy as jnp
from jax import lax

from switch_jax.kernels.by_platform import put_in_order, stable_argsort
from switch_jax.moe.dispatch import Assignment
from switch_jax.moe.router import Distribution


def assign_choices(
    choices: jax.Array,
    gates: jax.Array,
    distribution: Distribution,
    capacity: int,
    valid: jax.Array,
    asks: jax.Array | None = None,
    order: jax.Array | None = None,
) -> Assignment:
    """Gives each token a slot in each of k given experts, while slots last.

    All first choices take slots before all second ones, and so on; among equal choices the order is
    that of the tokens, or `order`. So with k > 1 a token's later choices depend on the tokens after
    it.

    Args:
      choices: [G, k, S] int32, different experts for each token, the first choice first; E = none.
      gates: [G, k, S] float32, of the choices.
      distribution: of the router's logits [G, S, E], for losses and statistics.
      capacity: C.
      valid: [G, S] bool, False on padding.
      asks: [G, k, S] bool, whether the choice asks for a slot; None = all do.
      order: [G, S] int32, the tokens in the order in which they take slots; None = as they stand.
    """
    groups, experts = len(choices), distribution.logits.shape[-1]
    is_wanted = jnp.broadcast_to(valid[:, None], choices.shape)  # [G, k, S]
    if asks is not None:
        is_wanted &= asks  # [G, k, S]
    expert_of_choice = jnp.where(is_wanted, choices, experts)  # [G, k, S]
    if order is not None:
        first_number = jnp.arange(0, is_wanted[0].size, order.shape[1])[:, None]  # [k, 1]
        order = (order[:, None] + first_number).reshape(groups, -1)  # [G, k * S]
    position, token_index, _ = take_slots(
        expert_of_choice.reshape(groups, -1), experts, capacity, order
    )  # [G, k * S], [G, E, C]
    position = position.reshape(choices.shape)  # [G, k, S]
    return Assignment(
        expert_index=choices,
        gate=jnp.where(position < capacity, gates, 0.0),  # [G, k, S]
        position_in_expert=position,
        token_index=token_index,
        router=distribution.sums(valid),
        load=choice_load(choices[:, 0], experts, valid),  # [G, E]
    )


def choice_load(expert_index: jax.Array, experts: int, valid: jax.Array) -> jax.Array:
    """How many real tokens choose each expert: [G, S], [G, S] -> [G, E] float32."""
    is_chosen = expert_index[..., None] == jnp.arange(experts)  # [G, S, E]
    return jnp.sum(is_chosen & valid[..., None], axis=1, dtype=jnp.float32)  # [G, E]


def take_slots(
    expert_index: jax.Array, experts: int, capacity: int, order: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Hands out the slots of each expert, one choice after the other.

    Args:
      expert_index: [G, T] int32, the expert that each of T choices wants; E = none.
      experts: E.
      capacity: C.
      order: [G, T] int32, the choices in the order in which they take slots; None = as they stand.

    Returns:
      [G, T] int32, the slot of each, C where it has none; [G, E, C] int32, who has the slot, T
      where nobody does; and [G, E] int32, how many want the expert.
    """
    if order is not None:
        expert_index = jnp.take_along_axis(expert_index, order, axis=1)  # [G, T]
        position, place, load = take_slots(expert_index, experts, capacity)
        return put_in_order(order, position), _take(order, place), load

    groups, number = expert_index.shape
    # A position in an expert is the rank among those that want it. The sort is stable: they stay in
    # order.
    iota = lax.broadcasted_iota(jnp.int32, (groups, number), 1)  # [G, T]
    sorted_index, sorted_choices = stable_argsort(expert_index, experts + 1)  # [G, T], [G, T]
    previous = jnp.pad(sorted_index, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]  # [G, T]
    first_of_expert = jnp.where(sorted_index != previous, iota, 0)  # [G, T]
    sorted_rank = iota - lax.cummax(first_of_expert, axis=1)  # [G, T]
    rank = put_in_order(sorted_choices, sorted_rank)  # [G, T]
    position = jnp.where((rank < capacity) & (expert_index < experts), rank, capacity)  # [G, T]

    # The inverse map: those of an expert are consecutive, from `start` on.
    is_chosen = expert_index[..., None] == jnp.arange(experts)  # [G, T, E]
    load = jnp.sum(is_chosen, axis=1, dtype=jnp.int32)  # [G, E]
    start = jnp.cumsum(load, axis=1) - load  # [G, E]
    slot = jnp.arange(capacity, dtype=jnp.int32)  # [C]
    is_filled = slot < load[..., None]  # [G, E, C]
    source = jnp.where(is_filled, start[..., None] + slot, number)  # [G, E, C]
    return position, _take(sorted_choices, source), load


def _take(choices: jax.Array, places: jax.Array) -> jax.Array:
    """[G, T] choices, [G, E, C] places among them -> [G, E, C] choices; T where a place is T."""
    fill = choices.shape[1]
    return jax.vmap(lambda c, p: c.at[p].get(mode="fill", fill_value=fill))(choices, places)
