"""No-Token-Left-Behind (App. B): tokens that found their expert full go to their next choice."""

import jax
import jax.numpy as jnp

from switch_jax.moe.slots import Assignment, assign_choices, choice_load, take_slots


def assign_in_rounds(
    choices: jax.Array,
    router_logits: jax.Array,
    capacity: int,
    valid: jax.Array,
    order: jax.Array | None = None,
) -> Assignment:
    """Gives each token one expert: the first of its choices that still has a slot in its round.

    In round r, the tokens that have no slot yet ask for one in their r-th choice, in token order,
    and get what the rounds before have left. The first round is `assign`. A token that has none
    after the last round is dropped. The gate is the probability of the expert that is used; `load`
    counts first choices.

    A later token can take a slot in round 1 that an earlier token asks for only in round 2. So in a
    decoder, within a group, a token's expert depends on the tokens after it, as in Mesh TensorFlow.

    Args:
      choices: [G, R, S] int32, different experts for each token, one for each round.
      router_logits, capacity, valid, order: as for `assign_choices`.

    Returns:
      An `Assignment` with one choice, [G, 1, S]: the expert that is used; E for a dropped token.
    """
    tokens, experts = valid.shape[1], router_logits.shape[-1]
    if order is not None:
        order = jnp.concatenate([order, tokens + order], axis=1)  # [G, 2 * S]
    expert = jnp.full(valid.shape, experts, jnp.int32)  # [G, S], of those that have a slot
    for choice in jnp.unstack(choices, axis=1):  # [G, S]
        wanted = jnp.where(valid & (expert == experts), choice, experts)  # [G, S]
        # Those that have a slot come before those that ask for one.
        both = jnp.concatenate([expert, wanted], axis=1)  # [G, 2 * S]
        position = take_slots(both, experts, capacity, order)[0][:, tokens:]  # [G, S]
        expert = jnp.where(position < capacity, wanted, expert)  # [G, S]
    assignment = assign_choices(expert[:, None], router_logits, capacity, valid)
    return assignment._replace(load=choice_load(choices[:, 0], experts, valid))
