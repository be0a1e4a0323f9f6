"""Draws what a Switch layer does with the tokens of a text, as the model of a run routes it.

python -m tools.pictures.layer runs/demo/switch docs/switch_layer.svg

The layer is the first Switch layer of the encoder, and the text is a group by itself, with the
capacity factor of training. Tokens are routed by their first choice.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import switch_jax
from switch_jax.data.catalogue.vocabularies import piece
from switch_jax.moe.capacity import capacity_of
from tools.pictures.slots import tokens_in_slots
from tools.pictures.svg import Picture, colour_of, curve

TEXT = "The king said to the people: we will build a new city by the sea."

TOP, TOKEN_ROW, EXPERT_ROW = 34, 26, 41  # where the rows begin, and their heights
TOKEN, GATE, LINE, EXPERT, SLOT = 10, 96, 136, 258, 274  # where the columns begin
SLOT_WIDTH = 68


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
    Path(path).write_text(draw(tokens, experts, gates, config.num_experts, capacity))


def draw(
    tokens: Sequence[str], experts: np.ndarray, gates: np.ndarray, num_experts: int, capacity: int
) -> str:
    """The picture as SVG: tokens on the left, with lines to their slots on the right.

    Args:
      tokens: S texts.
      experts, gates: [S], of each token.
      num_experts: E.
      capacity: C, the slots of each expert.
    """
    token_of = tokens_in_slots(experts[None], num_experts, capacity)[0]  # [E, C]
    dropped = sorted(set(range(len(tokens))) - {i for row in token_of for i in row})
    last_row = _expert_y(num_experts) + 6  # of the dropped tokens
    height = max(TOP + TOKEN_ROW * len(tokens), last_row + 44)
    first_token = (TOP + height - TOKEN_ROW * (len(tokens) - 1)) / 2

    picture = Picture("A text's tokens, their gates, and the slots that they take in their experts")
    picture.text(TOKEN + 39, 18, "token", "middle")
    picture.text(GATE, 18, "gate")
    picture.text(EXPERT, 18, f"experts, {capacity} slots each")
    for i, (token, expert, gate) in enumerate(zip(tokens, experts, gates, strict=True)):
        y, is_dropped = first_token + TOKEN_ROW * i, i in dropped
        end = last_row if is_dropped else _expert_y(expert)
        picture.chip(TOKEN, y, token, colour_of(expert), 78)
        picture.text(GATE, y, f"{gate:.2f}", size=14)
        picture.path(curve(LINE, y, EXPERT - 14, end), colour_of(expert), dashed=is_dropped)
    for expert, taken in enumerate(token_of):
        y, colour = _expert_y(expert), colour_of(expert)
        picture.text(EXPERT, y, str(expert), "middle", bold=True)
        for slot, taker in enumerate(taken):
            x = SLOT + SLOT_WIDTH * slot
            if taker is None:
                picture.slot(x, y, SLOT_WIDTH - 4)
            else:
                picture.chip(x, y, tokens[taker], colour, SLOT_WIDTH - 4)
    if dropped:
        picture.text(SLOT, last_row + 26, "no slot left: passed on unchanged")
    for place, i in enumerate(dropped):
        x, colour = SLOT + SLOT_WIDTH * place, colour_of(experts[i])
        picture.chip(x, last_row, tokens[i], colour, SLOT_WIDTH - 4, dropped=True)
    return picture.svg(height, SLOT + SLOT_WIDTH * max(capacity, len(dropped)) + 6)


def _expert_y(expert: int) -> float:
    """The height of the middle of an expert's row; the row after the last is one more."""
    return TOP + EXPERT_ROW * expert + TOKEN_ROW / 2


if __name__ == "__main__":
    main()
