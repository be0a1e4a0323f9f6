"""A Switch layer with ReLU experts, by itself."""

import jax

from switch_jax.config import ModelConfig
from switch_jax.moe import switch_ffn

# Of the rest of a model, which the layer does not read.
SIZES = {"num_embeddings": 2, "embed_dim": 1, "mlp_dim": 1, "head_dim": 1, "num_heads": 1}


def switch(experts, group_size, capacity_factor, **changes):
    """A function of x [B, L, D], valid [B, L] and weights, and of key and router_index."""
    config = ModelConfig(
        **SIZES, num_encoder_layers=1, num_decoder_layers=1, sparse_step=1, num_experts=experts,
        **{"min_expert_capacity": 1, "jitter_noise": 0.0, **changes},
    )  # fmt: skip

    def layer(x, valid, weights, key=None, router_index=0):
        return switch_ffn(
            x, valid, weights, config, jax.nn.relu, group_size=group_size,
            capacity_factor=capacity_factor, router_type=config.encoder_router_type, key=key,
            router_index=router_index,
        )  # fmt: skip

    return layer
