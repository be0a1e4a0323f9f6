"""The routing rule that a config names: from a router's logits to slots (App. B and C, Table 1)."""

import jax
import jax.numpy as jnp

from switch_jax.config import ModelConfig
from switch_jax.moe.choices import choice_gates, choice_scores, top_choices
from switch_jax.moe.experts_choose import ChosenTokens, choose_tokens
from switch_jax.moe.no_token_left_behind import assign_in_rounds
from switch_jax.moe.random_streams import RouterKey, Stream, gumbel, noise
from switch_jax.moe.router import router_probabilities
from switch_jax.moe.slots import Assignment, assign_choices
from switch_jax.moe.top_1 import assign


def route_tokens(
    logits: jax.Array,
    bias: jax.Array | None,
    valid: jax.Array,
    capacity: int,
    config: ModelConfig,
    router_type: str,
    key: RouterKey | None,
) -> Assignment | ChosenTokens:
    """The experts and slots of each token, by the policies of the config.

    Args:
      logits: [G, S, E] float32 or bfloat16.
      bias: [E] float32, added to the scores of the experts; None = there is none.
      valid: [G, S] bool, False on padding.
      capacity: C.
      config: its policies.
      router_type: of `ModelConfig.router_types`.
      key: for what is drawn in training; None = argmax, and all choices ask for a slot.
    """
    if router_type == "experts_choose":
        return choose_tokens(logits, capacity, valid)

    sample_key = key if config.router_policy == "sample" else None
    asks_one_expert = config.num_selected_experts == 1 and config.ntlb_rounds == 1
    scores_are_logits = sample_key is None and bias is None and logits.dtype == jnp.float32
    if asks_one_expert and scores_are_logits and router_type == "tokens_choose":
        return assign(logits, capacity, valid)

    scores = choice_scores(logits, bias)  # [G, S, E]
    if sample_key is not None:
        scores += gumbel(sample_key.bits(Stream.SAMPLED_EXPERT, logits.shape))
    # [G, k, S] or, with No-Token-Left-Behind, one for each round
    choices = top_choices(scores, max(config.num_selected_experts, config.ntlb_rounds))
    order = None
    if router_type == "batch_prioritized":
        order = _order_of_gates(choices, logits)
    if config.ntlb_rounds > 1:
        return assign_in_rounds(choices, logits, capacity, valid, order)
    least_gate = None
    if key is not None and config.second_expert_policy == "random":
        least_gate = _random_least_gates(key, choices.shape, config.second_expert_threshold)
    return assign_choices(choices, logits, capacity, valid, least_gate, order)


def _order_of_gates(choices: jax.Array, logits: jax.Array) -> jax.Array:
    """[G, S] int32: the tokens, those whose first choice is most probable first.

    Batch-prioritised routing (Riquelme et al. 2021, arXiv 2106.05974, section 4.1). Among equal
    ones the earlier token comes first.
    """
    router_probs = router_probabilities(logits)[-1]  # [G, S, E]
    gate = choice_gates(router_probs, choices[:, :1])[:, 0]  # [G, S]
    return jnp.argsort(gate, axis=1, descending=True, stable=True).astype(jnp.int32)


def _random_least_gates(key: RouterKey, shape: tuple[int, ...], threshold: float) -> jax.Array:
    """[G, k, S]: choices after the first are kept with the probability gate / threshold."""
    groups, chosen, tokens = shape
    bits = key.bits(Stream.SECOND_EXPERT, (groups, tokens, chosen))
    uniform = jnp.swapaxes(noise(bits) + 1, 1, 2) / 2  # [G, k, S], in [0, 1)
    is_later = jnp.arange(chosen)[:, None] > 0  # [k, 1]
    return jnp.where(is_later, threshold * uniform, -1.0)
