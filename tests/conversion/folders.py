"""Hugging Face folders for the tests, written by hand."""

import json
import shutil
from pathlib import Path

from safetensors.numpy import load_file, save_file

import switch_jax
from switch_jax.cli import main

REPOSITORY = Path(switch_jax.__file__).parents[1]
ORACLE = REPOSITORY / "tests/model/oracle"
# 1,000 pieces, to which come 100 sentinels.
VOCABULARY = REPOSITORY / "tasks/data/english_1000.model"

CONFIG = {
    "model_type": "switch_transformers",
    **json.loads((ORACLE / "nodrop_tied.json").read_text())["config"],
}
TENSORS = load_file(ORACLE / "nodrop_tied.weights.safetensors")


def write_folder(path, config=CONFIG, tensors=TENSORS):
    """A folder with config.json and model.safetensors."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    save_file(tensors, path / "model.safetensors")
    return path


def with_vocabulary(path):
    """The folder with a SentencePiece model; its embedding has 1,100 rows or more."""
    shutil.copyfile(VOCABULARY, path / "spiece.model")
    return path


def convert(*arguments):
    """`switch_jax convert`, which must succeed."""
    assert main(["convert", *map(str, arguments)]) == 0
    return Path(arguments[1])


def failure(capsys, *arguments):
    """The line that `switch_jax convert` ends with, as a user's mistake."""
    assert main(["convert", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if line.startswith("switch_jax convert: ")]
    assert "Traceback" not in error
    return line.removeprefix("switch_jax convert: ")
