"""Experts that choose tokens (Zhou et al. 2022, arXiv 2202.09368): routing, and moving the rows.

Each expert fills its slots with the tokens of the group that have the highest probabilities for it.
So the load is even without a loss, and a token may be in several experts or in none. Whether a
token is taken depends on the tokens after it: it is a rule for encoders.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from switch_jax.moe.router import RouterSums, probabilities_and_sums, router_probabilities
from switch_jax.partitioning.collectives import mark_varying
from switch_jax.partitioning.mesh import BATCH


class ChosenTokens(NamedTuple):
    """What each expert took.

    Attributes:
      token_index: [G, E, C] int32, the token in each slot, the most probable one first; S where the
        slot is empty.
      gate: [G, E, C] float32, what multiplies the expert's output: the router's probability of the
        expert for this token; 0 where the slot is empty.
      is_taken: [G, E, S] bool, that the expert took the token.
      router: what the losses and statistics need of it.
      load: [G, E] float32, the number of real tokens divided by E, since all experts take the same
        number. So the load-balancing loss is 1 and its gradient 0.
    """

    token_index: jax.Array
    gate: jax.Array
    is_taken: jax.Array
    router: RouterSums
    load: jax.Array

    @property
    def has_no_slot(self) -> jax.Array:
        """[G, S] bool, that no expert took the token; none takes padding."""
        return ~jnp.any(self.is_taken, axis=1)

    @property
    def num_slots(self) -> jax.Array:
        """[G, S] int32, how many experts took the token."""
        return jnp.sum(self.is_taken, axis=1, dtype=jnp.int32)


def choose_tokens(router_logits: jax.Array, capacity: int, valid: jax.Array) -> ChosenTokens:
    """Gives each expert the C tokens with its highest probabilities (Zhou et al. 2022).

    Among equal probabilities the earlier token is taken. The paper's capacity is that of Eq. 3,
    tokens / experts x capacity factor: the factor is the number of experts that a token has on
    average. Padding is never taken, and of its slots an expert fills only the share that real
    tokens have in the group. So the average does not depend on how much padding there is.

    Args:
      router_logits: [G, S, E] float32 or bfloat16.
      capacity: C, at most S.
      valid: [G, S] bool, False on padding.

    Returns:
      `ChosenTokens`. `gate`, `router.log_normalizer` and `router.importance` are differentiable;
      the gradient of the other fields is 0.
    """
    tokens, experts = router_logits.shape[1:]
    router_probs, router = probabilities_and_sums(router_logits, valid)  # [G, S, E]
    probs = jnp.swapaxes(router_probs, 1, 2)  # [G, E, S]
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


def choosing_experts(
    router_logits: jax.Array, capacity: int, valid: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The experts that take each token, and their gates; arguments as for `choose_tokens`.

    Returns:
      [G, S, E] int32, those of the highest gate first, and E behind the last one; and the gates
      [G, S, E] float32, 0 there.
    """
    experts = router_logits.shape[-1]
    is_taken = jnp.swapaxes(choose_tokens(router_logits, capacity, valid).is_taken, 1, 2)
    probs = router_probabilities(router_logits)[-1]  # [G, S, E]
    gates, index = lax.top_k(jnp.where(is_taken, probs, 0.0), experts)  # [G, S, E] each
    return jnp.where(gates > 0, index, experts), gates


def gather_tokens(tokens: jax.Array, token_of_slot: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """[B, L, D] tokens -> [R, D] slots of each chunk, 0 where a slot is empty.

    Args:
      tokens: of all groups.
      token_of_slot: for each chunk, [R] int32, row in the flattened [B * L] tokens; B * L where the
        slot is empty. See `dispatch.in_chunks`.
    """
    rows = tokens.reshape(-1, tokens.shape[-1])  # [B * L, D]
    return tuple(rows.at[index].get(mode="fill", fill_value=0) for index in token_of_slot)


def add_slots(
    chunks: Sequence[jax.Array],
    gates: Sequence[jax.Array],
    token_of_slot: Sequence[jax.Array],
    batch_shape: tuple[int, int],
) -> jax.Array:
    """[R, D] slots of each chunk -> [B, L, D] tokens: of each the sum of its experts' outputs.

    Each output is multiplied by its gate; the sum is in float32.

    Args:
      chunks: what the experts computed from the rows that `gather_tokens` gave.
      gates: for each chunk, [R] float32.
      token_of_slot: the same as for `gather_tokens`.
      batch_shape: (B, L).
    """
    batch, length = batch_shape
    y = jnp.zeros((batch * length, chunks[0].shape[-1]), jnp.float32)  # [B * L, D]
    y = mark_varying(y, BATCH)
    for chunk, gate, index in zip(chunks, gates, token_of_slot, strict=True):
        y = y.at[index].add(chunk.astype(jnp.float32) * gate[:, None], mode="drop")  # [B * L, D]
    return y.astype(chunks[0].dtype).reshape(batch, length, -1)
