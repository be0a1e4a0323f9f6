"""No-Token-Left-Behind (App. B): tokens that found their expert full go to their next choice."""

import jax
import jax.numpy as jnp

from switch_jax.moe.dispatch import Assignment
from switch_jax.moe.random_streams import RouterKey
from switch_jax.moe.router import Distribution
from switch_jax.moe.routing import Bias
from switch_jax.moe.slots import assign_choices, choice_load, take_slots
from switch_jax.moe.tokens import Tokens
from switch_jax.moe.tokens_choose import TokensChoose


class NoTokenLeftBehind(TokensChoose):
    """Each token has one expert, the first of its choices that has a slot in its round."""

    def assign(
        self, logits: jax.Array, tokens: Tokens, bias: Bias, capacity: int, key: RouterKey | None
    ) -> Assignment:
        """Gives slots in rounds.

        In round r, the tokens that have no slot yet ask for one in their r-th choice, in token
        order, and get what the rounds before have left. A token that has none after the last round
        is dropped. The gate is the probability of the expert that is used; `load` counts first
        choices.

        A later token can take a slot in round 1 that an earlier token asks for only in round 2. So
        in a decoder, within a group, a token's expert depends on the tokens after it, as in Mesh
        TensorFlow.

        Returns:
          An `Assignment` with one choice: the expert that is used; E for a dropped token.
        """
        valid, (*_, size, experts) = tokens.valid, logits.shape
        distribution = Distribution.of(logits)
        choices = self.ranked(logits, bias, self.config.ntlb_rounds, key)  # [G, rounds, S]
        order = self.order(distribution, choices)
        if order is not None:
            order = jnp.concatenate([order, size + order], axis=1)  # [G, 2 * S]
        expert = jnp.full(valid.shape, experts, jnp.int32)  # [G, S], of those that have a slot
        for choice in jnp.unstack(choices, axis=1):  # [G, S]
            wanted = jnp.where(valid & (expert == experts), choice, experts)  # [G, S]
            # Those that have a slot come before those that ask for one.
            both = jnp.concatenate([expert, wanted], axis=1)  # [G, 2 * S]
            position = take_slots(both, experts, capacity, order)[0][:, size:]  # [G, S]
            expert = jnp.where(position < capacity, wanted, expert)  # [G, S]
        used = expert[:, None]  # [G, 1, S]
        gates = distribution.gates(used)  # [G, 1, S]
        assignment = assign_choices(used, gates, distribution, capacity, valid)
        return assignment._replace(load=choice_load(choices[:, 0], experts, valid))
