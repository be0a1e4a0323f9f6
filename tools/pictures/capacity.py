"""A group of tokens, the slots of its experts at three capacity factors, and who is dropped."""

import numpy as np

from switch_jax.moe.capacity import expert_capacity
from tools.pictures.slots import tokens_in_slots
from tools.pictures.svg import Picture, colour_of

# The experts of a group's tokens, as an example.
CHOICES = np.array([1, 0, 0, 2, 0, 1, 3, 0, 2, 0, 1, 0, 3, 1, 0, 2])
EXPERTS = 4
FACTORS = (1.0, 1.25, 2.0)
LEFT, SLOT, ROW = 16, 38, 27


def draw() -> str:
    """The picture as SVG."""
    tokens = len(CHOICES)
    picture = Picture("The slots that a group's tokens take, and the tokens that find none")
    picture.text(LEFT, 20, f"A group of {tokens} tokens, in the colours of the experts they choose")
    for i, expert in enumerate(CHOICES):
        picture.chip(LEFT + 33 * i, 48, str(i + 1), colour_of(expert), 30)
    y = 86.0
    of_expert = tokens_in_slots(CHOICES[None], EXPERTS, tokens)[0]  # with a slot for every token
    wanted = [[token for token in row if token is not None] for row in of_expert]
    for factor in FACTORS:
        slots = expert_capacity(tokens, EXPERTS, factor)
        heading = f"factor {factor:g}: {tokens} / {EXPERTS} x {factor:g} = {slots} slots"
        picture.text(LEFT, y, f"{heading} an expert", bold=True)
        for expert, row in enumerate(wanted):
            middle = y + 28 + ROW * expert
            picture.text(LEFT, middle, f"expert {expert}")
            for place in range(len(row), slots):
                picture.slot(_x(place), middle, SLOT - 4)
            for place, token in enumerate(row):
                x, late = _x(place + (place >= slots)), place >= slots
                text, colour = str(token + 1), colour_of(expert)
                picture.chip(x, middle, text, colour, SLOT - 4, dropped=late)
            if len(row) > slots:
                picture.text(_x(len(row) + 1) + 4, middle, "dropped")
        dropped = sum(max(0, len(row) - slots) for row in wanted)
        empty = sum(max(0, slots - len(row)) for row in wanted)
        picture.text(LEFT, y + 30 + ROW * EXPERTS, f"{dropped} tokens dropped, {empty} slots empty")
        y += 30 + ROW * EXPERTS + 46
    return picture.svg(y - 24)


def _x(place: int) -> float:
    return LEFT + 88 + SLOT * place
