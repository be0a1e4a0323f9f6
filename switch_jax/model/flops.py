"""The number of parameters and of floating-point operations of a model, from its sizes alone."""

import math

import jax

from switch_jax.config import ModelConfig
from switch_jax.model.feed_forward import num_projections
from switch_jax.model.functional import abstract_parameters
from switch_jax.utils.units import counted


def parameter_count(config: ModelConfig) -> int:
    """The number of all parameters, those of all experts included."""
    leaves = jax.tree.leaves(abstract_parameters(config))
    return sum(math.prod(leaf.shape) for leaf in leaves)


def described(config: ModelConfig) -> str:
    """The kind of model and its size, as "Switch Transformer, 8 experts, 1,234,567 parameters"."""
    experts = config.num_experts
    kind = f"Switch Transformer, {counted(experts, 'expert')}" if experts else "dense T5"
    return f"{kind}, {parameter_count(config):,} parameters"


def flops_per_token(config: ModelConfig, input_length: int, target_length: int) -> float:
    """Those of `forward_flops` for each token of the sequence, of inputs and targets."""
    return forward_flops(config, input_length, target_length) / (input_length + target_length)


def forward_flops(config: ModelConfig, input_length: int, target_length: int) -> float:
    """Floating-point operations of one sequence's forward pass, as the paper counts (footnote 7).

    Counted are two operations for each matrix parameter that a token meets, whatever the number of
    experts, and half of each square of attention scores. The router is left out, and the capacity
    factor, but where experts choose: there it is the number of experts that a token meets. The
    paper counts keys and values of cross-attention for target tokens, though they come from input
    tokens. Table 9 prints 124e9 for T5-Base and Switch-Base at 512 and 114 tokens.
    """
    dim, inner = config.embed_dim, config.num_heads * config.head_dim
    encoder, decoder = config.num_encoder_layers, config.num_decoder_layers
    chosen: float = config.num_selected_experts
    of_input = chosen
    if config.router_types["encoder"] == "experts_choose":
        of_input = config.train_expert_capacity_factor
    matrices = input_length * _self_attention_and_feed_forward(config, "encoder", of_input)
    matrices += target_length * _self_attention_and_feed_forward(config, "decoder", chosen)
    matrices += target_length * decoder * 4 * dim * inner  # cross-attention
    matrices += target_length * dim * config.num_embeddings
    # Scores and the weighted sum of values: 2 products of `inner` for each pair of positions.
    pairs = encoder * input_length**2 + decoder * (target_length**2 + input_length * target_length)
    return 2.0 * matrices + 2.0 * 2 * inner * pairs / 2


def training_flops(
    config: ModelConfig,
    input_length: int,
    target_length: int,
    slots: tuple[float, float] | None = None,
) -> float:
    """Floating-point operations that one sequence's training step needs: forward and backward.

    Counted are all matrix products, nothing halved, with keys and values of cross-attention at
    input tokens: what no implementation can avoid. The backward pass counts as two forward passes.

    Lengths include padding. `slots` are expert slots for each input token and for each target
    token, empty ones too, as `groups.Groups.capacity_factor` has them; None: `needed_slots`.
    """
    slots = slots or needed_slots(config)
    dim, inner = config.embed_dim, config.num_heads * config.head_dim
    encoder, decoder = config.num_encoder_layers, config.num_decoder_layers
    router = dim * config.num_experts
    by_input = _self_attention_and_feed_forward(config, "encoder", slots[0], router)
    by_input += decoder * 2 * dim * inner  # keys and values of cross-attention
    by_target = _self_attention_and_feed_forward(config, "decoder", slots[1], router)
    by_target += decoder * 2 * dim * inner  # its queries and output
    by_target += dim * config.num_embeddings
    # Scores and the weighted sum of values: 2 products of `inner` for each pair of positions.
    pairs = encoder * input_length**2 + decoder * (target_length**2 + input_length * target_length)
    forward = input_length * by_input + target_length * by_target + 2 * inner * pairs
    return 3 * 2.0 * forward


def needed_slots(config: ModelConfig, *, training: bool = True) -> tuple[float, float]:
    """The expert slots that an input token and a target token need at even routing.

    As many as a token has experts, but no more than a capacity factor above 1. Where experts
    choose, all slots are filled, so it is the factor.
    """
    by_stack = [
        factor
        if config.router_types[stack] == "experts_choose"
        else min(config.num_selected_experts, max(1.0, factor))
        for stack, factor in config.capacity_factors(training=training).items()
    ]
    return by_stack[0], by_stack[1]


def _self_attention_and_feed_forward(
    config: ModelConfig, stack: str, slots: float, router: int = 0
) -> float:
    """Matrix parameters that a token meets in these sublayers of a stack, with `slots` experts."""
    dim, inner, hidden = (
        config.embed_dim,
        config.num_heads * config.head_dim,
        config.expert_hidden_dim,
    )
    projections = num_projections(config.activation)
    dense = {
        "attention": 4 * dim * inner,
        "feed_forward": (projections + 1) * dim * config.mlp_dim,
    }
    expert = {
        "attention": (projections * dim + 2 * inner) * hidden,
        "feed_forward": (projections + 1) * dim * hidden,
    }
    beside_experts = {
        "attention": dim * inner,
        "feed_forward": (projections + 1) * dim * (config.shared_expert_mlp_dim or 0),
    }
    layers = {"encoder": config.num_encoder_layers, "decoder": config.num_decoder_layers}[stack]
    met: float = layers * sum(dense.values())
    for _, sublayer in config.routers[stack]:
        met += slots * expert[sublayer] + beside_experts[sublayer] + router - dense[sublayer]
    return met
