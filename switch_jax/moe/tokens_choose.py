"""Tokens that choose experts: the policy of a Switch Transformer, and of MoE with several experts.

Each token has its most probable expert, or several, or one that is drawn (App. B and C, Table 1).
"""

import jax
import jax.numpy as jnp
from jax import lax

from switch_jax.moe import top_1
from switch_jax.moe.dispatch import Assignment, ChosenTokens
from switch_jax.moe.random_streams import RouterKey, Stream, gumbel, noise
from switch_jax.moe.router import Distribution
from switch_jax.moe.routing import Bias, Router
from switch_jax.moe.tokens import Tokens


class TokensChoose(Router):
    """Each token has the k experts of its highest scores."""

    def choose(
        self, distribution: Distribution, tokens: Tokens, bias: Bias, key: RouterKey | None
    ) -> tuple[jax.Array, jax.Array]:
        """The k most probable experts of each token; with the policy 'sample' a drawn one."""
        choices = self.ranked(distribution.logits, bias, self.config.num_selected_experts, key)
        return choices, distribution.gates(choices, self.config.normalize_gates)

    def ranked(
        self, logits: jax.Array, bias: Bias, number: int, key: RouterKey | None
    ) -> jax.Array:
        """The `number` experts of the highest scores: [..., S, E] -> [..., number, S] int32."""
        scores = choice_scores(logits, bias)  # [..., S, E]
        if key is not None and self._draws(key):
            scores += gumbel(key.bits(Stream.SAMPLED_EXPERT, logits.shape))
        return top_choices(scores, number)

    def asks(self, gates: jax.Array, key: RouterKey | None) -> jax.Array | None:
        """At random, choices after the first ask with the probability gate / threshold."""
        if key is None or self.config.second_expert_policy != "random":
            return None
        groups, chosen, tokens = gates.shape
        bits = key.bits(Stream.SECOND_EXPERT, (groups, tokens, chosen))
        uniform = jnp.swapaxes(noise(bits) + 1, 1, 2) / 2  # [G, k, S], in [0, 1)
        is_later = jnp.arange(chosen)[:, None] > 0  # [k, 1]
        return gates > jnp.where(is_later, self.config.second_expert_threshold * uniform, -1.0)

    def assign(
        self, logits: jax.Array, tokens: Tokens, bias: Bias, capacity: int, key: RouterKey | None
    ) -> Assignment | ChosenTokens:
        """As `Router.assign`; the default, one most probable expert, has a way of its own."""
        config = self.config
        scores_are_logits = bias is None and logits.dtype == jnp.float32
        in_order = self.stack.router_type == "tokens_choose"
        asks_one_expert = config.num_selected_experts == 1 and not self._draws(key)
        if asks_one_expert and scores_are_logits and in_order:
            return top_1.assign(logits, capacity, tokens.valid)
        return super().assign(logits, tokens, bias, capacity, key)

    def _draws(self, key: RouterKey | None) -> bool:
        return key is not None and self.config.router_policy == "sample"


def choice_scores(logits: jax.Array, bias: Bias) -> jax.Array:
    """What the experts of a token are chosen by: [..., S, E] logits -> [..., S, E] float32.

    Without biases, [E] float32, the logits. With them each token's logits, standardised over the
    experts to mean 0 and deviation 1, plus the bias: so one rate of update suits routers of any
    scale, with any number of experts. DeepSeek-V3 (arXiv 2412.19437, Eq. 16) adds the bias to
    sigmoids of the logits, whose spread is that of the logits. Gates are probabilities, without
    bias.
    """
    logits = logits.astype(jnp.float32)
    if bias is None:
        return logits
    variance = jnp.var(logits, axis=-1, keepdims=True)  # [..., S, 1]
    # The epsilon is for equal logits; it is far below the variance of any router's.
    return jax.nn.standardize(logits, variance=variance, epsilon=1e-12) + bias


def top_choices(scores: jax.Array, number: int) -> jax.Array:
    """The best experts first, of equal ones the lowest: [..., S, E] -> [..., number, S] int32."""
    scores = lax.stop_gradient(scores)
    if number == 1:
        return jnp.argmax(scores, axis=-1).astype(jnp.int32)[..., None, :]  # [..., 1, S]
    return jnp.swapaxes(lax.top_k(scores, number)[1], -1, -2)  # [..., number, S]
