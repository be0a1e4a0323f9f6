import jax
import jax.numpy as jnp

from switch_jax.config import ModelConfig
from switch_jax.moe import (
    Distribution,
    LayerKey,
    Tokens,
    assign_choices,
    dropless_ffn,
    make_router,
    switch_ffn,
)

# Of the rest of a model, which the layer does not read.
SIZES = {"num_embeddings": 2, "embed_dim": 1, "mlp_dim": 1, "head_dim": 1, "num_heads": 1}


def config_of(experts, **changes):
    return ModelConfig(
        **SIZES, num_encoder_layers=1, num_decoder_layers=1, sparse_step=1, num_experts=experts,
        **{"min_expert_capacity": 1, "jitter_noise": 0.0, **changes},
    )  # fmt: skip


def tokens(valid) -> Tokens:
    """Real ones have segment 1."""
    segments = jnp.asarray(valid, jnp.int32)
    return Tokens(jnp.zeros_like(segments), segments)


def switch(experts, group_size, capacity_factor, **changes):
    """A function of x [B, L, D], valid [B, L] and weights, and of key and router_index."""
    factors = dict.fromkeys(
        ("train_expert_capacity_factor", "eval_expert_capacity_factor"), capacity_factor
    )
    config = config_of(experts, group_size=group_size, **factors, **changes)

    def layer(x, valid, weights, key=None, router_index=0):
        layer_key = None if key is None else LayerKey(key, router_index)
        return switch_ffn(
            x, tokens(valid), weights, make_router(config, config.stacks[0]), jax.nn.relu,
            training=key is not None, key=layer_key,
        )  # fmt: skip

    return layer


def dropless(x, valid, weights, activation=jax.nn.relu, **changes):
    """The layer in decoding."""
    config = config_of(weights.router.shape[-1], **changes)
    router = make_router(config, config.stacks[0])
    return dropless_ffn(x, tokens(valid), weights, router, activation)


def assign(choices, logits, capacity, valid):
    """Slots for given choices."""
    distribution = Distribution.of(logits)
    return assign_choices(choices, distribution.gates(choices), distribution, capacity, valid)
