"""The routing rule that a config names: from a router's logits to slots (App. B and C, Table 1)."""

import jax
import jax.numpy as jnp

from switch_jax.config import ModelConfig
from switch_jax.moe.choices import choice_scores, top_choices
from switch_jax.moe.no_token_left_behind import assign_in_rounds
from switch_jax.moe.random_streams import RouterKey, Stream, gumbel, noise
from switch_jax.moe.slots import Assignment, assign_choices
from switch_jax.moe.top_1 import assign


def route_tokens(
    logits: jax.Array,
    bias: jax.Array | None,
    valid: jax.Array,
    capacity: int,
    config: ModelConfig,
    key: RouterKey | None,
) -> Assignment:
    """The experts and slots of each token, by the policies of the config.

    Args:
      logits: [G, S, E] float32 or bfloat16.
      bias: [E] float32, added to the scores of the experts; None = there is none.
      valid: [G, S] bool, False on padding.
      capacity: C.
      config: its policies.
      key: for what is drawn in training; None = argmax, and all choices ask for a slot.
    """
    sample_key = key if config.router_policy == "sample" else None
    asks_one_expert = config.num_selected_experts == 1 and config.ntlb_rounds == 1
    scores_are_logits = sample_key is None and bias is None and logits.dtype == jnp.float32
    if asks_one_expert and scores_are_logits:
        return assign(logits, capacity, valid)

    scores = choice_scores(logits, bias)  # [G, S, E]
    if sample_key is not None:
        scores += gumbel(sample_key.bits(Stream.SAMPLED_EXPERT, logits.shape))
    if config.ntlb_rounds > 1:
        return assign_in_rounds(top_choices(scores, config.ntlb_rounds), logits, capacity, valid)
    choices = top_choices(scores, config.num_selected_experts)  # [G, k, S]
    least_gate = None
    if key is not None and config.second_expert_policy == "random":
        least_gate = _random_least_gates(key, choices.shape, config.second_expert_threshold)
    return assign_choices(choices, logits, capacity, valid, least_gate)


def _random_least_gates(key: RouterKey, shape: tuple[int, ...], threshold: float) -> jax.Array:
    """[G, k, S]: choices after the first are kept with the probability gate / threshold."""
    groups, chosen, tokens = shape
    bits = key.bits(Stream.SECOND_EXPERT, (groups, tokens, chosen))
    uniform = jnp.swapaxes(noise(bits) + 1, 1, 2) / 2  # [G, k, S], in [0, 1)
    is_later = jnp.arange(chosen)[:, None] > 0  # [k, 1]
    return jnp.where(is_later, threshold * uniform, -1.0)
