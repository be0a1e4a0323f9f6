"""Switch layers in attention (App. A, Table 10): experts make the queries, keys and values."""

import jax
import jax.numpy as jnp
from flax import nnx

from switch_jax.config import ModelConfig
from switch_jax.config.stack import StackConfig
from switch_jax.model import parameters
from switch_jax.model.attention import KeysAndValues, SelfAttention
from switch_jax.model.feed_forward import Experts
from switch_jax.model.heads import query_fan
from switch_jax.model.layer_context import LayerContext
from switch_jax.moe import RouterOutput, Tokens
from switch_jax.partitioning.mesh import constrain_heads


class SwitchAttention(SelfAttention, Experts):
    """Self-attention in which a token's query and key are what its expert gives.

    As in Mesh TensorFlow's ExpertsSelfAttention, an expert is a feed-forward network with two
    outputs, one for the query and one for the key, which is the value too. A token that was dropped
    has a query, key and value of 0. The projection of the sums of values is dense.
    """

    def __init__(self, config: ModelConfig, stack: StackConfig, rngs: nnx.Rngs) -> None:
        # Draws three keys, as `Projections` does for query, key and value, so that all parameters
        # outside the experts start as in the dense model with this seed.
        own_key, *_ = (rngs.params() for _ in range(3))
        own_rngs = nnx.Rngs(params=own_key)
        # The numbers of its routers follow those of feed-forward layers.
        super().__init__(config, stack, own_rngs, first_router=stack.num_layers)
        self.causal = stack.causal
        scale, hidden = config.scale, config.expert_hidden_dim
        inner = config.num_heads * config.head_dim
        of_keys = config.num_experts, hidden, config.key_value_heads * config.head_dim
        # Devices split F, as in every expert, and so not the heads.
        shape, axes = (config.num_experts, hidden, inner), ("expert", "mlp", "joined_kv")
        variance = scale / query_fan(config, hidden)
        self.query_wo = parameters.truncated_normal(own_rngs, shape, axes, variance)
        self.key_wo = parameters.truncated_normal(own_rngs, of_keys, axes, scale / hidden)
        self.add_norms(config)
        self.out = parameters.truncated_normal(
            rngs, (inner, config.embed_dim), ("heads", "embed"), scale / inner
        )

    def queries_keys_and_values(
        self, x: jax.Array, tokens: Tokens, context: LayerContext
    ) -> tuple[jax.Array, KeysAndValues, RouterOutput | None]:
        """As `SelfAttention.queries_keys_and_values`; without RouterOutput in decoding."""
        y, router = self.through_experts(x, tokens, context)  # [B, L, queries' and keys' H * K]
        inner = self.config.num_heads * self.config.head_dim
        q, k = (constrain_heads(part) for part in jnp.split(y, [inner], axis=-1))  # [B, L, H * K]
        return q, (k, k), router

    def _wo(self) -> jax.Array:
        return jnp.concatenate([self.query_wo[...], self.key_wo[...]], axis=-1)  # [E, F, width]
