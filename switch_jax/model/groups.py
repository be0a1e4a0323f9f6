"""The routing groups of a training step: their sizes, and the tokens that even routing drops."""

import math
from typing import NamedTuple

from switch_jax.config import ModelConfig
from switch_jax.moe import capacity_of, expected_drop, group_shape
from switch_jax.units import percent

# The gin macro that sets the group size of each stack.
MACROS = {"encoder": "GROUP_SIZE", "decoder": "DECODER_GROUP_SIZE"}
MAX_DROPPED = 0.01  # the paper drops "typically < 1%" (section 2.2)


class Groups(NamedTuple):
    """The routing groups of one stack's Switch layers in training.

    Attributes:
      tokens: S, the tokens of a group, padding included.
      slots: C, the slots of an expert in a group (Eq. 3).
      capacity_factor: the effective factor, slots x experts / tokens. It differs from the config's
        by rounding and by the minimum capacity.
      expected_drop: the fraction of tokens, with several experts a token of their choices, that
        find their expert full at even routing; see `moe.expected_drop`. None with
        No-Token-Left-Behind, where such a token goes to its next expert, and where experts choose.
      warning: where more than 1 % of the tokens are dropped, or there is no slot for each choice, a
        line that says so and what to set; else None.
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
    model: ModelConfig, batch_size: int, lengths: tuple[int, int], parts: int
) -> dict[str, Groups]:
    """The groups of each stack with experts, 'encoder' and 'decoder'.

    Args:
      model: the config.
      batch_size: rows of the batch.
      lengths: tokens of a row of inputs and of a row of targets.
      parts: microbatches x devices along data and expert. The batch divides over these parts, and
        a group lies within one part.

    Raises:
      UserError: a group size does not fit the rows.
    """
    by_stack = {}
    rows = batch_size // parts  # on a device at once
    largest_sizes = {stack: rows * length for stack, length in zip(MACROS, lengths, strict=True)}
    for (stack, size), length in zip(model.group_sizes.items(), lengths, strict=True):
        if not model.sparse_layers[stack]:
            continue
        groups = _groups(model, batch_size, length, size, stack)
        if groups.choices > 1:
            groups = groups._replace(warning=_warning_of_few_slots(stack, groups))
        elif groups.expected_drop is not None and groups.expected_drop > MAX_DROPPED:
            warning = _warning(model, batch_size, length, largest_sizes, stack, groups)
            groups = groups._replace(warning=warning)
        by_stack[stack] = groups
    return by_stack


def _groups(model: ModelConfig, batch_size: int, length: int, size: int, stack: str) -> Groups:
    _, tokens = group_shape(batch_size, length, size, name=MACROS[stack])
    slots = capacity_of(model, tokens, model.train_expert_capacity_factor)
    factor = slots * model.num_experts / tokens
    if model.router_types[stack] == "experts_choose":
        return Groups(tokens, slots, factor, None, experts_choose=True)
    choices, dropped = model.num_selected_experts, None
    if model.ntlb_rounds == 1:
        dropped = expected_drop(tokens, model.num_experts, slots, choices)
    return Groups(tokens, slots, factor, dropped, choices=choices)


def _warning_of_few_slots(stack: str, groups: Groups) -> str | None:
    """With several experts a token: where the choices outnumber the slots, what has room."""
    if groups.capacity_factor >= groups.choices or groups.expected_drop is None:
        return None
    return (
        f"each token has {groups.choices} experts, and the {stack} {groups.capacity_factor:.4g} "
        f"slots per token: {percent(groups.expected_drop)} of evenly routed choices are dropped; "
        f"TRAIN_EXPERT_CAPACITY_FACTOR={1.25 * groups.choices:g} has room for them"
    )


def _warning(
    model: ModelConfig,
    batch_size: int,
    length: int,
    largest_sizes: dict[str, int],
    stack: str,
    groups: Groups,
) -> str:
    """What drops fewer tokens: groups of all rows that a device has at once, or more slots.

    `largest_sizes` are the group sizes of each stack that hold all these rows.
    """

    def drop(groups: Groups) -> float:
        return expected_drop(groups.tokens, model.num_experts, groups.slots)

    largest = _groups(model, batch_size, length, largest_sizes[stack], stack)
    if drop(largest) < drop(groups):
        size = f"{MACROS[stack]}={largest_sizes[stack]}"
        if stack == "encoder" and model.decoder_group_size in (None, model.group_size):
            # The decoder takes over the encoder's size, which may not fit its rows.
            size += f" with {MACROS['decoder']}={largest_sizes['decoder']}"
        size += f" drops {percent(drop(largest))}"
    else:
        size = "no larger group that fits on a device drops less"
    slots = next(
        slots
        for slots in range(groups.slots, groups.tokens + 1)
        if drop(groups._replace(slots=slots)) <= MAX_DROPPED
    )
    factor = math.ceil(100 * slots * model.num_experts / groups.tokens) / 100
    return (
        f"of evenly routed tokens the {stack} drops {percent(drop(groups))}, where the "
        f"paper drops under 1 %; {size}; with these groups TRAIN_EXPERT_CAPACITY_FACTOR={factor} "
        "drops under 1 %"
    )
