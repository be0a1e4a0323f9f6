"""Which experts a token asks for, in order of preference, and their gates.

The layer and decoding share these functions. k experts are chosen for each token.
"""

import jax
import jax.numpy as jnp
from jax import lax


def choice_scores(router_logits: jax.Array, router_bias: jax.Array | None) -> jax.Array:
    """What the experts of a token are chosen by: [..., S, E] logits -> [..., S, E] float32.

    With biases: each token's logits, standardised over the experts to mean 0 and deviation 1, plus
    the bias. So one rate of update suits routers of any scale, with any number of experts.
    DeepSeek-V3 (arXiv 2412.19437, Eq. 16) adds the bias to sigmoids of the logits, whose spread is
    that of the logits. The gates are the probabilities, without bias.

    Args:
      router_logits: float32 or bfloat16.
      router_bias: [E] float32; None = the logits are the scores.
    """
    router_logits = router_logits.astype(jnp.float32)
    if router_bias is None:
        return router_logits
    variance = jnp.var(router_logits, axis=-1, keepdims=True)  # [..., S, 1]
    # The epsilon is for equal logits; it is far below the variance of any router's.
    return jax.nn.standardize(router_logits, variance=variance, epsilon=1e-12) + router_bias


def top_choices(scores: jax.Array, number: int) -> jax.Array:
    """The experts with the highest scores: [..., S, E] -> [..., k, S] int32, the best one first.

    Among equal scores the expert with the lowest index comes first.

    Args:
      scores: [..., S, E] float32, constants to the gradient.
      number: k, at most E.
    """
    scores = lax.stop_gradient(scores)
    if number == 1:
        return jnp.argmax(scores, axis=-1).astype(jnp.int32)[..., None, :]  # [..., 1, S]
    return jnp.swapaxes(lax.top_k(scores, number)[1], -1, -2)  # [..., k, S]


def choice_gates(router_probs: jax.Array, choices: jax.Array) -> jax.Array:
    """The gates of chosen experts: [..., S, E] probabilities, [..., k, S] choices -> [..., k, S].

    One expert's gate is its probability (Eq. 2). Those of several are their probabilities divided
    by the sum of these (Shazeer et al. 2017, Eq. 3 to 5; GShard, Algorithm 1), before any choice
    is dropped.
    """
    experts = jnp.arange(router_probs.shape[-1])  # [E]
    is_chosen = choices[..., None] == experts  # [..., k, S, E]
    probs = jnp.sum(jnp.where(is_chosen, router_probs[..., None, :, :], 0.0), -1)  # [..., k, S]
    if choices.shape[-2] == 1:
        return probs
    return probs / (probs.sum(-2, keepdims=True) + 1e-9)  # [..., k, S]
