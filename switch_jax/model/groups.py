"""The routing groups of a training step: their sizes, and the tokens that even routing drops."""

from collections.abc import Mapping
from typing import NamedTuple

from switch_jax.config import ModelConfig
from switch_jax.config.stack import StackConfig
from switch_jax.moe import capacity_of, expected_drop, group_shape
from switch_jax.utils.units import percent

MAX_DROPPED = 0.01  # the paper drops "typically < 1%" (section 2.2)


class Groups(NamedTuple):
    """The routing groups of one stack's Switch layers in training.

    Attributes:
      tokens: S, the tokens of a group, padding included.
      slots: C, the slots of an expert in a group (Eq. 3).
      capacity_factor: slots x experts / tokens; rounding and the minimum capacity make it differ
        from the config's.
      expected_drop: the fraction of tokens, with several experts a token of their choices, that
        find their expert full at even routing; see `moe.expected_drop`. None with
        No-Token-Left-Behind, where such a token goes to its next expert, and where experts choose.
      warning: a line where more than 1 % of the tokens, or of their choices, are dropped.
      choices: k, the experts of a token.
      experts_choose: whether the slots are for the tokens that their expert chooses.
    """

    tokens: int
    slots: int
    capacity_factor: float
    expected_drop: float | None
    warning: str | None = None
    choices: int = 1
    experts_choose: bool = False

    def __str__(self) -> str:
        if self.experts_choose:
            return (
                f"{self.tokens:,} tokens in a group, of which each expert chooses {self.slots}: "
                f"{self.capacity_factor:.4g} experts a token on average"
            )
        slots = (
            f"{self.tokens:,} tokens in a group, {self.slots} slots per expert (capacity factor "
            f"{self.capacity_factor:.4g})"
        )
        if self.expected_drop is None:
            return slots
        of = "of the choices " if self.choices > 1 else ""
        return f"{slots}: {percent(self.expected_drop)} {of}dropped at even routing"


def training_groups(
    model: ModelConfig, batch_size: int, lengths: Mapping[str, int]
) -> dict[str, Groups]:
    """The groups of each stack with experts, by its name.

    `lengths` are tokens of a row by feature. Raises UserError where a group size does not fit the
    rows.
    """
    return {
        stack.name: _groups(model, batch_size, stack.length(lengths), stack)
        for stack in model.stacks
        if stack.sparse_layers
    }


def _groups(model: ModelConfig, batch_size: int, length: int, stack: StackConfig) -> Groups:
    _, tokens = group_shape(batch_size, length, stack.group_size, name=stack.group_size_macro)
    slots = capacity_of(model, tokens, stack.train_expert_capacity_factor)
    factor = slots * model.num_experts / tokens
    if stack.router_type == "experts_choose":
        return Groups(tokens, slots, factor, None, experts_choose=True)
    choices = model.num_selected_experts
    if model.ntlb_rounds > 1:
        return Groups(tokens, slots, factor, None, choices=choices)
    dropped, warning = expected_drop(tokens, model.num_experts, slots, choices), None
    if dropped > MAX_DROPPED and choices > max(1, factor):
        warning = (
            f"each token has {choices} experts, and the {stack.name} {factor:.4g} slots per token: "
            f"{percent(dropped)} of evenly routed choices are dropped; a larger "
            "TRAIN_EXPERT_CAPACITY_FACTOR has room for them"
        )
    elif dropped > MAX_DROPPED:
        routed = "tokens" if choices == 1 else "choices"
        warning = (
            f"of evenly routed {routed} the {stack.name} drops {percent(dropped)}, where the paper "
            f"drops under 1 %; a larger {stack.group_size_macro} or TRAIN_EXPERT_CAPACITY_FACTOR "
            "drops fewer"
        )
    return Groups(tokens, slots, factor, dropped, warning, choices)
