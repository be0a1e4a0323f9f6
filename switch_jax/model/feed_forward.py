"""The feed-forward layers of a Transformer layer, the dense one and the Switch one, and experts."""

import jax
import jax.numpy as jnp
from flax import nnx

from switch_jax.config import ModelConfig
from switch_jax.config.stack import StackConfig
from switch_jax.model import parameters
from switch_jax.model.activations import ACTIVATIONS
from switch_jax.model.layer_context import LayerContext
from switch_jax.model.layers import dropout, project
from switch_jax.moe import (
    Choices,
    Distribution,
    RouterOutput,
    SwitchWeights,
    Tokens,
    dropless_ffn,
    make_router,
    switch_ffn,
)
from switch_jax.partitioning.mesh import gather_activations


class DenseFeedForward(nnx.Module):
    """T5's feed-forward layer: projection to F, activation, dropout, projection back to D."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, mlp_dim: int | None = None) -> None:
        """`mlp_dim` is F; None = that of the config."""
        dim, hidden, scale = config.embed_dim, mlp_dim or config.mlp_dim, config.scale
        for i in range(ACTIVATIONS[config.activation].num_projections):
            wi = parameters.truncated_normal(rngs, (dim, hidden), ("embed", "mlp"), scale / dim)
            setattr(self, f"wi_{i}", wi)
        self.wo = parameters.truncated_normal(rngs, (hidden, dim), ("mlp", "embed"), scale / hidden)
        self.config = config

    def __call__(
        self, x: jax.Array, tokens: Tokens, context: LayerContext
    ) -> tuple[jax.Array, None]:
        """[B, L, D] -> [B, L, D], and no router; padding is computed like other tokens."""
        del tokens
        activation = ACTIVATIONS[self.config.activation]
        kernels = [getattr(self, f"wi_{i}") for i in range(activation.num_projections)]
        with jax.named_scope("dense_ffn"):
            x = gather_activations(x)
            projections = [project(x, kernel[...]) for kernel in kernels]  # [B, L, F] each
            hidden = activation.function(*projections)  # [B, L, F]
            hidden = dropout(hidden, self.config.dropout_rate, context.dropout.feed_forward)
            return project(hidden, self.wo[...]), None  # [B, L, D]


class Experts(nnx.Module):
    """A router and E experts, each a feed-forward network; each token goes through one of them.

    Or through `num_selected_experts` of them. A subclass says what the experts give: it has the
    output projections, and `_wo`.
    """

    def __init__(
        self, config: ModelConfig, stack: StackConfig, rngs: nnx.Rngs, first_router: int = 0
    ) -> None:
        """`first_router`: of the routers of the stack, the number of that in layer 0."""
        dim, experts, scale = config.embed_dim, config.num_experts, config.scale
        self.router = parameters.truncated_normal(
            rngs, (dim, experts), ("embed", "router"), scale / dim
        )
        shape, axes = (experts, dim, config.expert_hidden_dim), ("expert", "embed", "mlp")
        for i in range(ACTIVATIONS[config.activation].num_projections):
            wi = parameters.truncated_normal(rngs, shape, axes, scale / dim)
            setattr(self, f"wi_{i}", wi)
        if config.load_balance == "bias":
            self.router_bias = parameters.constant((experts,), ("router",), 0.0)
        self.policy = make_router(config, stack, first_router)
        self.config = config

    def through_experts(
        self, x: jax.Array, tokens: Tokens, context: LayerContext
    ) -> tuple[jax.Array, RouterOutput | None]:
        """[B, L, D] -> [B, L, width of `_wo`], see `moe.switch_ffn`, and what the router did.

        In decoding and in prompts no token is dropped, and nothing is returned of the router.
        """
        weights, activation = self._weights(), ACTIVATIONS[self.config.activation].function
        if context.generates:
            return dropless_ffn(x, tokens, weights, self.policy, activation), None
        training, key = context.training, context.key
        y, statistics = switch_ffn(
            x, tokens, weights, self.policy, activation, training=training, key=key
        )
        choices = self._choices(x, tokens, weights) if context.with_choices else None
        return y, RouterOutput(statistics, choices)

    def _choices(self, x: jax.Array, tokens: Tokens, weights: SwitchWeights) -> Choices:
        """The choices of evaluation."""
        batch, length, _ = x.shape
        groups, size = self.policy.group_shape(batch, length)
        logits = self.policy.logits(x, weights.router).reshape(groups, size, -1)  # [G, S, E]
        found = self.policy.choose(
            Distribution.of(logits), tokens.in_groups(groups, size), weights.router_bias, None
        )
        return Choices(
            *(
                jnp.swapaxes(jnp.swapaxes(of_groups, 1, 2).reshape(batch, length, -1), 1, 2)
                for of_groups in found  # [G, k, S]
            )
        )

    def _wo(self) -> jax.Array:
        """[E, F, width], the output projections of the experts."""
        raise NotImplementedError

    def _weights(self) -> SwitchWeights:
        number = ACTIVATIONS[self.config.activation].num_projections
        wi = tuple(getattr(self, f"wi_{i}")[...] for i in range(number))
        kernel = self.router[...].astype(self.config.router_dtype)  # [D, E]
        bias = self.router_bias[...] if self.config.load_balance == "bias" else None  # [E]
        return SwitchWeights(kernel, wi, self._wo(), bias)


class SwitchFeedForward(Experts):
    """The Switch layer (section 2.1): experts as the feed-forward layer.

    With `num_selected_experts` above 1 it is the MoE layer of Table 1. With `shared_expert_mlp_dim`
    there is a dense layer beside the experts, for all tokens: what the two give is added
    (DeepSeekMoE, Dai et al. 2024, section 3.2).
    """

    def __init__(self, config: ModelConfig, stack: StackConfig, rngs: nnx.Rngs) -> None:
        super().__init__(config, stack, rngs)
        hidden = config.expert_hidden_dim
        shape, axes = (config.num_experts, hidden, config.embed_dim), ("expert", "mlp", "embed")
        self.wo = parameters.truncated_normal(rngs, shape, axes, config.scale / hidden)
        if config.shared_expert_mlp_dim:
            self.shared_expert = DenseFeedForward(config, rngs, config.shared_expert_mlp_dim)

    def __call__(
        self, x: jax.Array, tokens: Tokens, context: LayerContext
    ) -> tuple[jax.Array, RouterOutput | None]:
        """[B, L, D] -> [B, L, D], 0 for dropped tokens without a shared expert; RouterOutput."""
        y, router = self.through_experts(x, tokens, context)
        if self.config.shared_expert_mlp_dim:
            y += self.shared_expert(x, tokens, context)[0]
        return y, router

    def _wo(self) -> jax.Array:
        return self.wo[...]
