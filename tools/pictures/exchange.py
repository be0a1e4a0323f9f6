"""Tokens on four devices before and after the all-to-all of a Switch layer."""

import numpy as np

from switch_jax.moe.capacity import expert_capacity
from tools.pictures.slots import tokens_in_slots
from tools.pictures.svg import FAINT, WIDTH, Picture, colour_of

DEVICES = "ABCD"  # each has the expert of its number, and a group of tokens
# By device, the experts of its tokens: an example in which no expert is full.
CHOICES = np.array(
    [
        [1, 0, 3, 0, 2, 1, 3, 0],
        [2, 2, 0, 1, 3, 1, 2, 3],
        [0, 3, 3, 1, 0, 2, 1, 1],
        [3, 2, 0, 3, 2, 1, 0, 2],
    ]
)
FACTOR = 1.25
DEVICE, GAP = 128, 12  # widths of a device and of what is between two
CHIP, ROW = 36, 28
LEFT = (WIDTH - 4 * DEVICE - 3 * GAP) / 2


def draw() -> str:
    """The picture as SVG."""
    tokens = CHOICES.shape[1]
    slots = expert_capacity(tokens, len(DEVICES), FACTOR)
    taken = tokens_in_slots(CHOICES, len(DEVICES), slots)
    placed = [  # [device, expert, slot]
        [["" if i is None else f"{device}{i + 1}" for i in row] for row in of_device]
        for device, of_device in zip(DEVICES, taken, strict=True)
    ]

    picture = Picture("Tokens in slots on four devices, before and after the all-to-all")
    picture.text(LEFT, 20, "Before: each device has its own tokens, in a row for each expert")
    top, height = 40, 26 + 4 * ROW + 6
    below = top + height + 104
    for d, device in enumerate(DEVICES):
        _device(picture, d, top, f"device {device}", placed[d], [0, 1, 2, 3])
        for e in range(len(DEVICES)):
            x, end = _x(d) + DEVICE * (e + 0.5) / 4, _x(e) + DEVICE * (d + 0.5) / 4
            y, to = top + height, below
            path = f"M{x:g} {y} C{x:g} {y + 60} {end:g} {to - 60} {end:g} {to}"
            picture.path(path, colour_of(e), width=2)
    picture.box(WIDTH / 2 - 62, top + height + 36, 124, 30, FAINT, fill="#ffffff")
    picture.text(WIDTH / 2, top + height + 51, "all-to-all", "middle", bold=True)
    for e in range(len(DEVICES)):
        rows = [placed[d][e] for d in range(len(DEVICES))]
        _device(picture, e, below, f"{DEVICES[e]}: expert {e}", rows, [e] * 4)
    end = below + height + 22
    picture.text(LEFT, end, "After: each device has all tokens of its expert")
    return picture.svg(end + 20)


def _x(number: int) -> float:
    return LEFT + number * (DEVICE + GAP)


def _device(
    picture: Picture, number: int, y: float, name: str, rows: list[list[str]], experts: list[int]
) -> None:
    """Draws a device: its name, and rows of slots in the colours of their experts."""
    x = _x(number)
    picture.box(x, y, DEVICE, 32 + 4 * ROW)
    picture.text(x + DEVICE / 2, y + 16, name, "middle")
    for i, (row, expert) in enumerate(zip(rows, experts, strict=True)):
        middle = y + 30 + ROW * (i + 0.5)
        for slot, token in enumerate(row):
            left = x + 6 + 40 * slot
            if token:
                picture.chip(left, middle, token, colour_of(expert), CHIP)
            else:
                picture.slot(left, middle, CHIP)
