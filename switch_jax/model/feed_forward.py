"""The feed-forward layers: dense, and Switch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from switch_jax.config import ModelConfig
from switch_jax.model import parameters
from switch_jax.model.layers import dropout
from switch_jax.moe import RouterStatistics, SwitchConfig, SwitchWeights, dropless_ffn, switch_ffn


def activation(name: str) -> Callable[..., jax.Array]:
    """From one projection ('relu') or two ('gated-gelu') to the hidden activation."""
    if name == "relu":
        return relu
    return lambda gate, linear: jax.nn.gelu(gate, approximate=True) * linear


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    """max(x, 0), whose backward pass needs the result alone: the next matrix product keeps it."""
    return jax.nn.relu(x)


def _relu_fwd(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = jax.nn.relu(x)
    return y, y


def _relu_bwd(y: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    # Not where(y > 0, ...): the compiler turns that into x > 0, and would keep x, or a packed mask.
    return (cotangent * jnp.sign(y),)


relu.defvjp(_relu_fwd, _relu_bwd)


def num_projections(name: str) -> int:
    """How many input projections the activation takes."""
    return 1 if name == "relu" else 2


class DenseFeedForward(nnx.Module):
    """[D, F] -> activation -> [F, D]."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        dim, hidden, scale = config.embed_dim, config.mlp_dim, config.scale
        for i in range(num_projections(config.activation)):
            wi = parameters.truncated_normal(rngs, (dim, hidden), ("embed", "mlp"), scale / dim)
            setattr(self, f"wi_{i}", wi)
        self.wo = parameters.truncated_normal(rngs, (hidden, dim), ("mlp", "embed"), scale / hidden)
        self.config = config

    def __call__(
        self, x: jax.Array, valid: jax.Array, *, deterministic: bool, key: jax.Array | None
    ) -> tuple[jax.Array, None]:
        """[B, L, D] -> [B, L, D], and no statistics; padding is computed like the rest."""
        del valid, deterministic
        kernels = [getattr(self, f"wi_{i}") for i in range(num_projections(self.config.activation))]
        with jax.named_scope("dense_ffn"):
            projections = [x @ kernel[...].astype(x.dtype) for kernel in kernels]
            hidden = activation(self.config.activation)(*projections)
            hidden = dropout(hidden, self.config.dropout_rate, key)
            return hidden @ self.wo[...].astype(x.dtype), None

    def step(self, x: jax.Array, valid: jax.Array) -> jax.Array:
        """[B, L, D] -> [B, L, D] of tokens that are decoded."""
        return self(x, valid, deterministic=True, key=None)[0]


class SwitchFeedForward(nnx.Module):
    """A router and E feed-forward layers, of which each token goes through one."""

    def __init__(self, config: ModelConfig, decoder: bool, rngs: nnx.Rngs) -> None:
        dim, experts, scale = config.embed_dim, config.num_experts, config.scale
        hidden = config.expert_mlp_dim or config.mlp_dim
        into, out = ("expert", "embed", "mlp"), ("expert", "mlp", "embed")
        self.router = parameters.truncated_normal(
            rngs, (dim, experts), ("embed", "router"), scale / dim
        )
        for i in range(num_projections(config.activation)):
            wi = parameters.truncated_normal(rngs, (experts, dim, hidden), into, scale / dim)
            setattr(self, f"wi_{i}", wi)
        self.wo = parameters.truncated_normal(rngs, (experts, hidden, dim), out, scale / hidden)
        self.group_size = config.group_sizes["decoder" if decoder else "encoder"]
        self.config = config

    def __call__(
        self,
        x: jax.Array,
        valid: jax.Array,
        *,
        deterministic: bool,
        key: jax.Array | None,
        number: Any = 0,
    ) -> tuple[jax.Array, RouterStatistics]:
        """Routes and computes.

        Args:
          x: [B, L, D].
          valid: [B, L] bool, False on padding.
          deterministic: True takes the evaluation capacity factor, and no noise.
          key: for jitter and expert dropout; one for all layers of a stack.
          number: the layer's own, by which its noise differs from the others'.

        Returns:
          [B, L, D], 0 where a token was dropped, and the router's statistics.
        """
        config = self.config
        rate = config.expert_dropout_rate
        switch = SwitchConfig(
            num_experts=config.num_experts,
            group_size=self.group_size,
            capacity_factor=(
                config.eval_expert_capacity_factor
                if deterministic
                else config.train_expert_capacity_factor
            ),
            min_capacity=config.min_expert_capacity,
            capacity_multiple=config.expert_capacity_multiple,
            jitter=config.jitter_noise,
            expert_dropout=config.dropout_rate if rate is None else rate,
        )
        return switch_ffn(
            x, valid, self._experts(), switch, activation(config.activation),
            None if deterministic else key, number,
        )  # fmt: skip

    def step(self, x: jax.Array, valid: jax.Array) -> jax.Array:
        """[B, L, D] -> [B, L, D] of tokens that are decoded, none of which is dropped."""
        return dropless_ffn(x, valid, self._experts(), activation(self.config.activation))

    def _experts(self) -> SwitchWeights:
        names = [f"wi_{i}" for i in range(num_projections(self.config.activation))]
        wi = tuple(getattr(self, name)[...] for name in names)
        return SwitchWeights(self.router[...], wi, self.wo[...])
