"""Draws what a Switch layer does with the tokens of a text, as the model of a run routes it.

python -m tools.layer_picture runs/demo/switch docs/switch_layer.svg

The layer is the first Switch layer of the encoder, and the text is a group by itself, with the
capacity factor of training. Tokens are routed by their first choice.
"""

import html
import sys
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import switch_jax
from switch_jax.data.catalogue.vocabularies import piece
from switch_jax.moe.capacity import capacity_of
from switch_jax.moe.slots import take_slots

TEXT = "The king said to the people: we will build a new city by the sea."

# The ground is transparent, and everything is to be read on white and on black.
GREY = "#808080"
COLOURS = ("#3a86c8", "#cc6a2b", "#2a9a74", "#b9679a", "#a98210", "#4a98a8", "#8468c8", "#7d8a3c")
TOP, TOKEN_ROW, EXPERT_ROW = 34, 25, 41  # where the rows begin, and their heights
TOKEN, GATE, LINE, EXPERT, SLOT = 6, 92, 128, 254, 268  # where the columns begin
SLOT_WIDTH = 62


def main() -> None:
    """Writes the picture of a run's model to the path that the command line names."""
    model_dir, path = sys.argv[1:]
    model = switch_jax.load(model_dir, gin_bindings=["MESH_DATA=1", "MESH_EXPERT=1"])
    config, vocabulary = model.config.model, model.vocabularies["inputs"]
    routing = switch_jax.route(model, TEXT)["encoder"]
    ids = [*vocabulary.encode(TEXT), vocabulary.eos_id][: len(routing.tokens)]
    capacity = capacity_of(config, len(ids), config.train_expert_capacity_factor)
    tokens = [piece(vocabulary, i).replace("▁", "") or "▁" for i in ids]
    experts, gates = routing.experts[0, :, 0], routing.gates[0, :, 0]
    Path(path).write_text(picture(tokens, experts, gates, config.num_experts, capacity))


def picture(
    tokens: Sequence[str], experts: np.ndarray, gates: np.ndarray, num_experts: int, capacity: int
) -> str:
    """The picture as SVG: tokens on the left, with lines to their slots on the right.

    Args:
      tokens: S texts.
      experts, gates: [S], of each token.
      num_experts: E.
      capacity: C, the slots of each expert.
    """
    position, token_index, _ = take_slots(jnp.asarray(experts)[None], num_experts, capacity)
    slot_of, token_of = position[0].tolist(), token_index[0].tolist()  # [S], [E, C]
    dropped = [i for i, slot in enumerate(slot_of) if slot == capacity]
    last_row = _expert_y(num_experts) + 6  # of the dropped tokens
    height = max(TOP + TOKEN_ROW * len(tokens), last_row + 36)
    first_token = (TOP + height - TOKEN_ROW * (len(tokens) - 1)) / 2

    parts = [
        _text(TOKEN + 38, 18, "token", "middle"),
        _text(GATE, 18, "gate"),
        _text(EXPERT, 18, f"experts, {capacity} slots each"),
    ]
    for i, (token, expert, gate) in enumerate(zip(tokens, experts, gates, strict=True)):
        y, is_dropped = first_token + TOKEN_ROW * i, slot_of[i] == capacity
        end = last_row if is_dropped else _expert_y(expert)
        parts += [
            _chip(TOKEN, y, token, _colour(expert), 78),
            _text(GATE, y + 5, f"{gate:.2f}"),
            _line(LINE, y, EXPERT - 14, end, _colour(expert), dashed=is_dropped),
        ]
    for expert, taken in enumerate(token_of):
        y, colour = _expert_y(expert), _colour(expert)
        parts.append(_text(EXPERT, y + 5, str(expert), "middle", colour))
        for slot, i in enumerate(taken):
            x = SLOT + SLOT_WIDTH * slot
            is_taken = i < len(tokens)
            parts.append(_chip(x, y, tokens[i], colour) if is_taken else _empty_slot(x, y))
    if dropped:
        parts.append(_text(SLOT, last_row + 31, "no slot left: passed on unchanged"))
    for place, i in enumerate(dropped):
        x = SLOT + SLOT_WIDTH * place
        parts.append(_chip(x, last_row, tokens[i], _colour(experts[i]), hollow=True))
    width = SLOT + SLOT_WIDTH * max(capacity, len(dropped))
    title = "A text's tokens, their gates, and the slots that they take in their experts"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:g}" '
        f'viewBox="0 0 {width} {height:g}" font-family="system-ui, sans-serif" font-size="14">\n'
        f"<title>{title}</title>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _expert_y(expert: int) -> float:
    """The height of the middle of an expert's row; the row after the last is one more."""
    return TOP + EXPERT_ROW * expert + TOKEN_ROW / 2


def _colour(expert: int) -> str:
    return COLOURS[expert % len(COLOURS)]


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = GREY) -> str:
    text = html.escape(text)
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}">{text}</text>'


def _chip(
    x: float, y: float, token: str, colour: str, width: int = SLOT_WIDTH - 4, hollow: bool = False
) -> str:
    """A token in a rounded box, whose middle is at the height y."""
    fill, ink = ("none", colour) if hollow else (colour, "#ffffff")
    dashes = ' stroke-dasharray="4 3"' if hollow else ""
    box = (
        f'<rect x="{x:g}" y="{y - 10:g}" width="{width:g}" height="20" rx="5" fill="{fill}" '
        f'stroke="{colour}"{dashes}/>'
    )
    return box + _text(x + width / 2, y + 5, token, "middle", ink)


def _empty_slot(x: float, y: float) -> str:
    return (
        f'<rect x="{x:g}" y="{y - 10:g}" width="{SLOT_WIDTH - 4}" height="20" rx="5" fill="none" '
        f'stroke="{GREY}" stroke-opacity="0.6"/>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, dashed: bool) -> str:
    middle = (x1 + x2) / 2
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<path d="M{x1:g} {y1:g} C{middle:g} {y1:g} {middle:g} {y2:g} {x2:g} {y2:g}" '
        f'fill="none" stroke="{colour}" stroke-width="1.5"{dashes}/>'
    )


if __name__ == "__main__":
    main()
