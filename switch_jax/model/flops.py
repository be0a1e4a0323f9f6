"""The number of parameters and of floating-point operations of a model, from its sizes alone."""

import math
from collections.abc import Mapping

import jax

from switch_jax.config import ModelConfig
from switch_jax.config.stack import StackConfig
from switch_jax.model.activations import ACTIVATIONS
from switch_jax.model.functional import abstract_parameters
from switch_jax.utils.units import counted


def parameter_count(config: ModelConfig) -> int:
    """The number of all parameters, those of all experts included."""
    leaves = jax.tree.leaves(abstract_parameters(config))
    return sum(math.prod(leaf.shape) for leaf in leaves)


def active_parameter_count(config: ModelConfig) -> int:
    """The number of parameters that a token meets: all but those of the experts it does not go to.

    Both stacks count, and embeddings as a whole. Where experts choose, it is the mean over tokens.
    """
    expert = _matrices_of_an_expert(config)
    unmet = sum(
        (config.num_experts - _experts_of_a_token(config, stack)) * expert[sublayer]
        for stack in config.stacks
        for _, sublayer in stack.routers
    )
    return parameter_count(config) - round(unmet)


def described(config: ModelConfig) -> str:
    """The kind of model and its size, as "Switch Transformer, 8 experts, 1,234,567 parameters"."""
    experts = config.num_experts
    has_encoder = bool(config.stacks[-1].attends_to)
    if experts:
        sparse = "Switch Transformer" if has_encoder else "Switch language model"
        kind = f"{sparse}, {counted(experts, 'expert')}"
    else:
        kind = "dense T5" if has_encoder else "dense language model"
    return f"{kind}, {parameter_count(config):,} parameters"


def flops_per_token(config: ModelConfig, lengths: Mapping[str, int]) -> float:
    """Those of `forward_flops` for each token of the sequence, of all features."""
    return forward_flops(config, lengths) / sum(lengths.values())


def forward_flops(config: ModelConfig, lengths: Mapping[str, int]) -> float:
    """Floating-point operations of one sequence's forward pass, as the paper counts (footnote 7).

    Counted are two operations for each matrix parameter that a token meets, whatever the number of
    experts, and half of each square of attention scores. The router is left out, and the capacity
    factor, but where experts choose: there it is the number of experts that a token meets. The
    paper counts keys and values of cross-attention for target tokens, though they come from input
    tokens. Table 9 prints 124e9 for T5-Base and Switch-Base at 512 and 114 tokens.

    `lengths` are the tokens of a sequence by feature.
    """
    dim, inner, of_keys = _widths(config)
    matrices, pairs = 0.0, 0
    for stack in config.stacks:
        length, attended = _lengths(config, stack, lengths)
        chosen = _experts_of_a_token(config, stack)
        matrices += length * _self_attention_and_feed_forward(config, stack, chosen)
        if stack.attends_to:
            matrices += length * stack.num_layers * 2 * dim * (inner + of_keys)  # cross-attention
        pairs += stack.num_layers * length * (length + attended)
    matrices += config.stacks[-1].length(lengths) * dim * config.num_embeddings
    # Scores and the weighted sum of values: 2 products of `inner` for each pair of positions.
    return 2.0 * matrices + 2.0 * 2 * inner * pairs / 2


def training_flops(
    config: ModelConfig, lengths: Mapping[str, int], slots: Mapping[str, float] | None = None
) -> float:
    """Floating-point operations that one sequence's training step needs: forward and backward.

    Counted are all matrix products, with keys and values of cross-attention at input tokens, and
    all pairs of positions, of which causal attention needs half. The backward pass counts as two
    forward passes.

    `lengths` are the tokens of a sequence by feature, padding included. `slots` are, for each stack
    with experts, expert slots for each token, empty ones too, as `groups.Groups.capacity_factor`
    has them; None: `needed_slots`.
    """
    slots = slots or needed_slots(config)
    dim, inner, of_keys = _widths(config)
    router = dim * config.num_experts
    forward = 0.0
    for stack in config.stacks:
        length, attended = _lengths(config, stack, lengths)
        met = _self_attention_and_feed_forward(config, stack, slots.get(stack.name, 0.0), router)
        forward += length * met
        if stack.attends_to:  # queries and output; keys and values
            forward += stack.num_layers * 2 * dim * (length * inner + attended * of_keys)
        # Scores and the weighted sum of values: 2 products of `inner` for each pair of positions.
        forward += 2 * inner * stack.num_layers * length * (length + attended)
    forward += config.stacks[-1].length(lengths) * dim * config.num_embeddings
    return 3 * 2.0 * forward


def needed_slots(config: ModelConfig, *, training: bool = True) -> dict[str, float]:
    """The expert slots that a token of each stack needs at even routing.

    As many as a token has experts, but no more than a capacity factor above 1. Where experts
    choose, all slots are filled, so it is the factor.
    """
    slots = {}
    for stack in config.stacks:
        factor = stack.capacity_factor(training=training)
        chosen = min(config.num_selected_experts, max(1.0, factor))
        slots[stack.name] = factor if stack.router_type == "experts_choose" else chosen
    return slots


def _lengths(
    config: ModelConfig, stack: StackConfig, lengths: Mapping[str, int]
) -> tuple[int, int]:
    """The tokens of a stack, and those of the stack that it attends to, 0 without one."""
    attended = config.stack(stack.attends_to).length(lengths) if stack.attends_to else 0
    return stack.length(lengths), attended


def _widths(config: ModelConfig) -> tuple[int, int, int]:
    """D, H * K of queries, and that of keys and values."""
    queries = config.num_heads * config.head_dim
    return config.embed_dim, queries, config.key_value_heads * config.head_dim


def _experts_of_a_token(config: ModelConfig, stack: StackConfig) -> float:
    """How many experts a token goes to, whatever the capacity; the mean, where experts choose."""
    if stack.router_type == "experts_choose":
        return stack.train_expert_capacity_factor
    return config.num_selected_experts


def _matrices_of_an_expert(config: ModelConfig) -> dict[str, int]:
    """The parameters of an expert, by its sublayer."""
    (dim, inner, of_keys), hidden = _widths(config), config.expert_hidden_dim
    projections = ACTIVATIONS[config.activation].num_projections
    return {
        "attention": (projections * dim + inner + of_keys) * hidden,
        "feed_forward": (projections + 1) * dim * hidden,
    }


def _self_attention_and_feed_forward(
    config: ModelConfig, stack: StackConfig, slots: float, router: int = 0
) -> float:
    """Matrix parameters that a token meets in these sublayers of a stack, with `slots` experts."""
    (dim, inner, of_keys), expert = _widths(config), _matrices_of_an_expert(config)
    projections = ACTIVATIONS[config.activation].num_projections
    dense = {
        "attention": 2 * dim * (inner + of_keys),
        "feed_forward": (projections + 1) * dim * config.mlp_dim,
    }
    beside_experts = {
        "attention": dim * inner,
        "feed_forward": (projections + 1) * dim * (config.shared_expert_mlp_dim or 0),
    }
    met: float = stack.num_layers * sum(dense.values())
    for _, sublayer in stack.routers:
        met += slots * expert[sublayer] + beside_experts[sublayer] + router - dense[sublayer]
    return met
