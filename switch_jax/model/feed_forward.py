"""The feed-forward layers of a Transformer layer, the dense one and the Switch one, and experts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from switch_jax.config import ModelConfig
from switch_jax.model import parameters
from switch_jax.model.layers import dropout, project
from switch_jax.moe import (
    RouterStatistics,
    SwitchWeights,
    capacity_of,
    choose_experts,
    choosing_experts,
    dropless_ffn,
    group_shape,
    router_logits,
    switch_ffn,
)


def activation(name: str) -> Callable[..., jax.Array]:
    """A function from one projection ('relu') or two ('gated-gelu') to the hidden activation."""
    if name == "relu":
        return relu
    return lambda gate, linear: jax.nn.gelu(gate, approximate=True) * linear


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    """max(x, 0), whose backward pass needs only the result, which the next product keeps anyway."""
    return jax.nn.relu(x)


def _relu_fwd(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = jax.nn.relu(x)
    return y, y


def _relu_bwd(y: jax.Array, y_grad: jax.Array) -> tuple[jax.Array]:
    # Not where(y > 0, ...): the compiler turns that into x > 0, and keeps x or a packed mask.
    return (y_grad * jnp.sign(y),)


relu.defvjp(_relu_fwd, _relu_bwd)


def num_projections(name: str) -> int:
    """The number of input projections that the activation takes."""
    return 1 if name == "relu" else 2


class DenseFeedForward(nnx.Module):
    """T5's feed-forward layer: projection to F, activation, dropout, projection back to D."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, mlp_dim: int | None = None) -> None:
        """`mlp_dim` is F; None = that of the config."""
        dim, hidden, scale = config.embed_dim, mlp_dim or config.mlp_dim, config.scale
        for i in range(num_projections(config.activation)):
            wi = parameters.truncated_normal(rngs, (dim, hidden), ("embed", "mlp"), scale / dim)
            setattr(self, f"wi_{i}", wi)
        self.wo = parameters.truncated_normal(rngs, (hidden, dim), ("mlp", "embed"), scale / hidden)
        self.config = config

    def __call__(
        self, x: jax.Array, valid: jax.Array, *, deterministic: bool, key: jax.Array | None
    ) -> tuple[jax.Array, None]:
        """[B, L, D] -> [B, L, D], and no statistics; padding is computed like other tokens."""
        del valid, deterministic
        kernels = [getattr(self, f"wi_{i}") for i in range(num_projections(self.config.activation))]
        with jax.named_scope("dense_ffn"):
            projections = [project(x, kernel[...]) for kernel in kernels]  # [B, L, F] each
            hidden = activation(self.config.activation)(*projections)  # [B, L, F]
            hidden = dropout(hidden, self.config.dropout_rate, key)  # [B, L, F]
            return project(hidden, self.wo[...]), None  # [B, L, D]

    def step(self, x: jax.Array, valid: jax.Array) -> jax.Array:
        """[B, L, D] -> [B, L, D], in decoding."""
        return self(x, valid, deterministic=True, key=None)[0]


class Experts(nnx.Module):
    """A router and E experts, each a feed-forward network; each token goes through one of them.

    Or through `num_selected_experts` of them. A subclass says what the experts give: it has the
    output projections, and `_wo`.
    """

    def __init__(self, config: ModelConfig, decoder: bool, rngs: nnx.Rngs) -> None:
        dim, experts, scale = config.embed_dim, config.num_experts, config.scale
        self.router = parameters.truncated_normal(
            rngs, (dim, experts), ("embed", "router"), scale / dim
        )
        shape, axes = (experts, dim, config.expert_hidden_dim), ("expert", "embed", "mlp")
        for i in range(num_projections(config.activation)):
            wi = parameters.truncated_normal(rngs, shape, axes, scale / dim)
            setattr(self, f"wi_{i}", wi)
        if config.load_balance == "bias":
            self.router_bias = parameters.zeros((experts,), ("router",))
        self.stack = "decoder" if decoder else "encoder"
        self.returns_choices = False  # see `Transformer.choose_experts`
        self.config = config

    def _through_experts(
        self,
        x: jax.Array,
        valid: jax.Array,
        *,
        deterministic: bool,
        key: jax.Array | None,
        router_index: Any,
    ) -> tuple[jax.Array, RouterStatistics]:
        """[B, L, D] -> [B, L, width of `_wo`] and the router's statistics; see `moe.switch_ffn`."""
        config = self.config
        weights = self._weights()
        y, statistics = switch_ffn(
            x,
            valid,
            weights,
            config,
            activation(config.activation),
            group_size=config.group_sizes[self.stack],
            router_type=config.router_types[self.stack],
            capacity_factor=config.capacity_factors(training=not deterministic)[self.stack],
            key=None if deterministic else key,
            router_index=router_index,
        )
        if self.returns_choices:
            statistics = statistics._replace(choices=self._choices(x, valid))
        return y, statistics

    def _choices(self, x: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The experts [B, k, L] of each token and their gates; see `Transformer.choose_experts`."""
        config, weights = self.config, self._weights()
        if config.router_types[self.stack] != "experts_choose":
            return choose_experts(x, weights, config.num_selected_experts)
        batch, length, _ = x.shape
        groups, tokens = group_shape(batch, length, config.group_sizes[self.stack])
        factor = config.capacity_factors(training=False)[self.stack]
        capacity = capacity_of(config, tokens, factor)
        logits = router_logits(x, weights.router).reshape(groups, tokens, -1)  # [G, S, E]
        experts, gates = (
            jnp.swapaxes(of_groups.reshape(batch, length, -1), 1, 2)  # [B, E, L]
            for of_groups in choosing_experts(logits, capacity, valid.reshape(groups, tokens))
        )
        return experts, gates

    def _step_through_experts(self, x: jax.Array, valid: jax.Array) -> jax.Array:
        """The same in decoding, where no token is dropped."""
        config = self.config
        hidden_activation, chosen = activation(config.activation), config.num_selected_experts
        return dropless_ffn(x, valid, self._weights(), hidden_activation, chosen)

    def _wo(self) -> jax.Array:
        """[E, F, width], the output projections of the experts."""
        raise NotImplementedError

    def _weights(self) -> SwitchWeights:
        names = [f"wi_{i}" for i in range(num_projections(self.config.activation))]
        wi = tuple(getattr(self, name)[...] for name in names)
        router = self.router[...].astype(self.config.router_dtype)  # [D, E]
        bias = self.router_bias[...] if self.config.load_balance == "bias" else None  # [E]
        return SwitchWeights(router, wi, self._wo(), bias)


class SwitchFeedForward(Experts):
    """The Switch layer (section 2.1): experts as the feed-forward layer.

    With `num_selected_experts` above 1 it is the MoE layer of Table 1. With `shared_expert_mlp_dim`
    there is a dense layer beside the experts, for all tokens: what the two give is added
    (DeepSeekMoE, Dai et al. 2024, section 3.2).
    """

    def __init__(self, config: ModelConfig, decoder: bool, rngs: nnx.Rngs) -> None:
        super().__init__(config, decoder, rngs)
        hidden = config.expert_hidden_dim
        shape, axes = (config.num_experts, hidden, config.embed_dim), ("expert", "mlp", "embed")
        self.wo = parameters.truncated_normal(rngs, shape, axes, config.scale / hidden)
        if config.shared_expert_mlp_dim:
            self.shared_expert = DenseFeedForward(config, rngs, config.shared_expert_mlp_dim)

    def __call__(
        self,
        x: jax.Array,
        valid: jax.Array,
        *,
        deterministic: bool,
        key: jax.Array | None,
        shared_expert_key: jax.Array | None = None,
        router_index: Any = 0,
    ) -> tuple[jax.Array, RouterStatistics]:
        """Sends each token through its experts; see `moe.switch_ffn`.

        Args:
          x: [B, L, D].
          valid: [B, L] bool, False on padding.
          deterministic: True = the evaluation capacity factor, and no noise.
          key: for the router's noise and expert dropout; all layers of a stack have the same one.
          shared_expert_key: for the dropout of the shared expert, this layer's own.
          router_index: makes the router's noise different from that of others of the stack.

        Returns:
          [B, L, D], without a shared expert 0 where a token was dropped, and the router's
          statistics.
        """
        y, statistics = self._through_experts(
            x, valid, deterministic=deterministic, key=key, router_index=router_index
        )
        if self.config.shared_expert_mlp_dim:
            y += self.shared_expert(x, valid, deterministic=deterministic, key=shared_expert_key)[0]
        return y, statistics

    def step(self, x: jax.Array, valid: jax.Array) -> jax.Array:
        """[B, beams, D] -> [B, beams, D], in decoding, where no token is dropped."""
        y = self._step_through_experts(x, valid)
        if self.config.shared_expert_mlp_dim:
            y += self.shared_expert.step(x, valid)
        return y

    def _wo(self) -> jax.Array:
        return self.wo[...]
