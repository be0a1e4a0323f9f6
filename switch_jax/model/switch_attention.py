"""Switch layers in attention (App. A, Table 10): experts make the queries, keys and values."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from switch_jax.config import ModelConfig
from switch_jax.model import parameters
from switch_jax.model.attention import attend, attend_to_cache
from switch_jax.model.feed_forward import Experts
from switch_jax.model.layers import project
from switch_jax.moe import RouterStatistics
from switch_jax.partitioning.mesh import constrain_heads


class SwitchAttention(Experts):
    """Self-attention in which a token's query and key are what its expert gives.

    As in Mesh TensorFlow's ExpertsSelfAttention, an expert is a feed-forward network with two
    outputs, one for the query and one for the key, which is the value too. A token that was dropped
    has a query, key and value of 0. The projection of the sums of values is dense.
    """

    def __init__(self, config: ModelConfig, decoder: bool, rngs: nnx.Rngs) -> None:
        # Draws three keys, as `Attention` does for query, key and value, so that all parameters
        # outside the experts start as in the dense model with this seed.
        own_key, *_ = (rngs.params() for _ in range(3))
        own_rngs = nnx.Rngs(params=own_key)
        super().__init__(config, decoder, own_rngs)
        scale, hidden = config.scale, config.expert_hidden_dim
        inner = config.num_heads * config.head_dim
        # Devices split F, as in every expert, and so not the heads.
        shape, axes = (config.num_experts, hidden, inner), ("expert", "mlp", "joined_kv")
        # As in `Attention`, the factor 1 / sqrt(K) is part of the query's initialisation.
        variance = scale / (hidden * config.head_dim)
        self.query_wo = parameters.truncated_normal(own_rngs, shape, axes, variance)
        self.key_wo = parameters.truncated_normal(own_rngs, shape, axes, scale / hidden)
        self.out = parameters.truncated_normal(
            rngs, (inner, config.embed_dim), ("heads", "embed"), scale / inner
        )

    def __call__(
        self,
        x: jax.Array,
        segments: jax.Array,
        bias: jax.Array,
        *,
        causal: bool,
        deterministic: bool,
        key: jax.Array | None,
        dropout_key: jax.Array | None = None,
        router_index: Any = 0,
    ) -> tuple[jax.Array, RouterStatistics]:
        """Attends from x to itself.

        Args:
          x: [B, L, D].
          segments: [B, L] int32. A token sees those of its own segment; 0 = padding, which takes no
            slot of an expert.
          bias: [H, 2 W] float32, as for `Attention`.
          causal: a token sees none to its right.
          deterministic: True = the evaluation capacity factor, and no noise in the router.
          key: for the router's noise and expert dropout; all layers of a stack have the same one.
          dropout_key: for dropout on the attention weights, this layer's own; None = no dropout.
          router_index: makes the router's noise different from that of others of the stack.

        Returns:
          [B, L, D], and the router's statistics.
        """
        y, statistics = self._through_experts(
            x, segments != 0, deterministic=deterministic, key=key, router_index=router_index
        )  # [B, L, 2 H K]
        q, k = (constrain_heads(part) for part in jnp.split(y, 2, axis=-1))  # [B, L, H * K]
        y = attend(
            self.config, q, k, k, bias, segments, segments, causal=causal, key=dropout_key
        )  # [B, L, H * K]
        return project(y, self.out[...]), statistics

    def step(
        self,
        x: jax.Array,
        valid: jax.Array,
        keys: jax.Array,
        values: jax.Array,
        bias: jax.Array,
        position: jax.Array,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """As `Attention.step`, with no token dropped.

        `valid` is [B, beams] bool, False for a beam that has ended: its experts compute nothing.
        """
        y = self._step_through_experts(x, valid)  # [B, beams, 2 H K]
        q, k = jnp.split(y, 2, axis=-1)  # [B, beams, H * K]
        y = attend_to_cache(self.config, q, k, k, keys, values, bias, position)
        return project(y, self.out[...]), (k, k)

    def _wo(self) -> jax.Array:
        return jnp.concatenate([self.query_wo[...], self.key_wo[...]], axis=-1)  # [E, F, 2 H K]
