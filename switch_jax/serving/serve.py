"""Answers each line of standard input: `python serve.py < questions.txt`.

Needs what `pip install jax flatbuffers safetensors sentencepiece` brings. From Python:
`import serve; serve.generate([...])`.
"""

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jax import export
from safetensors.flax import load_file
from sentencepiece import SentencePieceProcessor

ROWS = 16  # lines that are answered together
FOLDER = Path(__file__).resolve().parent
SETTINGS = json.loads((FOLDER / "settings.json").read_text())
PREDICT = jax.jit(export.deserialize(bytearray((FOLDER / "predict.bin").read_bytes())).call)
PARAMETERS = load_file(FOLDER / "parameters.safetensors")
TOKENIZER = SentencePieceProcessor(model_file=str(FOLDER / "spiece.model"))


def generate(texts: Sequence[str], first_id: int = 0) -> list[str]:
    """An output for each text. Compiles once for each number of rows.

    What is sampled for a text depends on its id: `first_id` plus its place in `texts`.
    """
    multiple = SETTINGS["batch_multiple"]
    rows = max(1, -(-len(texts) // multiple)) * multiple
    tokens = np.zeros((rows, SETTINGS["input_length"]), np.int32)  # 0 is padding
    for row, text in zip(tokens, texts, strict=False):
        ids = [*TOKENIZER.encode(text)[: len(row) - 1], TOKENIZER.eos_id()]
        row[: len(ids)] = ids
    outputs, _ = PREDICT(PARAMETERS, tokens, first_id + np.arange(rows, dtype=np.int32))
    return [TOKENIZER.decode(ids) for ids in np.asarray(outputs)[: len(texts)].tolist()]


if __name__ == "__main__":
    lines = (line.rstrip("\n") for line in sys.stdin)
    for first_id in itertools.count(0, ROWS):
        batch = list(itertools.islice(lines, ROWS))
        if not batch:
            break
        # Filled up, so that it is compiled once.
        for output in generate([*batch, *[""] * (ROWS - len(batch))], first_id)[: len(batch)]:
            print(output, flush=True)
