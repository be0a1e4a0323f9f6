"""Experts that choose tokens (Zhou et al. 2022, arXiv 2202.09368).

Each expert fills its slots with the tokens of the group that have the highest probabilities for it.
So the load is even without a loss, and a token may be in several experts or in none. Whether a
token is taken depends on the tokens after it: it is a rule for encoders.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from switch_jax.moe.dispatch import ChosenTokens
from switch_jax.moe.random_streams import RouterKey
from switch_jax.moe.router import Distribution
from switch_jax.moe.routing import Bias, Router
from switch_jax.moe.tokens import Tokens


class ExpertsChoose(Router):
    """Each expert has the C tokens that are most probable for it."""

    def choose(
        self, distribution: Distribution, tokens: Tokens, bias: Bias, key: RouterKey | None
    ) -> tuple[jax.Array, jax.Array]:
        """The experts that take each token in evaluation, [G, E, S]: E behind the last one."""
        probs = distribution.probs  # [G, S, E]
        _, size, experts = probs.shape
        capacity = self.capacity(size, training=False)
        is_taken = choose_tokens(distribution, capacity, tokens.valid).is_taken  # [G, E, S]
        of_token = jnp.where(jnp.swapaxes(is_taken, 1, 2), probs, 0.0)  # [G, S, E]
        gates, index = lax.top_k(of_token, experts)  # [G, S, E] each
        choices = jnp.where(gates > 0, index, experts)  # [G, S, E]
        return jnp.swapaxes(choices, 1, 2), jnp.swapaxes(gates, 1, 2)

    def assign(
        self, logits: jax.Array, tokens: Tokens, bias: Bias, capacity: int, key: RouterKey | None
    ) -> ChosenTokens:
        """Gives each expert its tokens."""
        return choose_tokens(Distribution.of(logits), capacity, tokens.valid)


def choose_tokens(distribution: Distribution, capacity: int, valid: jax.Array) -> ChosenTokens:
    """Gives each expert the C tokens with its highest probabilities (Zhou et al. 2022).

    Among equal probabilities the earlier token is taken. The paper's capacity is that of Eq. 3,
    tokens / experts x capacity factor: the factor is the number of experts that a token has on
    average. Padding is never taken, and of its slots an expert fills only the share that real
    tokens have in the group. So the average does not depend on how much padding there is.

    Args:
      distribution: of logits [G, S, E].
      capacity: C, at most S.
      valid: [G, S] bool, False on padding.
    """
    tokens, experts = distribution.probs.shape[1:]
    router = distribution.sums(valid)
    probs = jnp.swapaxes(distribution.probs, 1, 2)  # [G, E, S]
    ranked = lax.stop_gradient(jnp.where(valid[:, None], probs, -1.0))  # [G, E, S]
    highest, token_index = lax.top_k(ranked, capacity)  # [G, E, C] each
    real_tokens = valid.sum(axis=1, dtype=jnp.int32)[:, None]  # [G, 1]
    # ceil(real_tokens * capacity / tokens), whose product may not fit in an int32.
    numbers = -(-np.arange(tokens + 1) * capacity // tokens)  # [S + 1] int64
    number = jnp.asarray(numbers, jnp.int32)[real_tokens][..., None]  # [G, 1, 1], of each expert
    is_filled = jnp.arange(capacity) < number  # [G, 1, C]
    # Of the tokens that are as probable as the last one taken, those up to it are taken.
    is_last = jnp.arange(capacity) == number - 1  # [G, 1, C]
    last = jnp.sum(jnp.where(is_last, highest, 0.0), -1, keepdims=True)  # [G, E, 1]
    last_token = jnp.sum(jnp.where(is_last, token_index, 0), -1, keepdims=True)  # [G, E, 1]
    is_before = jnp.arange(tokens) <= last_token  # [G, E, S]
    is_taken = valid[:, None] & ((ranked > last) | ((ranked == last) & is_before))  # [G, E, S]

    gate = jnp.take_along_axis(probs, token_index, axis=-1)  # [G, E, C]
    return ChosenTokens(
        token_index=jnp.where(is_filled, token_index, tokens),
        gate=jnp.where(is_filled, gate, 0.0),
        is_taken=is_taken,
        router=router,
        load=jnp.broadcast_to(real_tokens / experts, router.importance.shape),
    )
