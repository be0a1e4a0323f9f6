"""Hugging Face folders for the tests, written by hand; and what reads those of any format."""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

import switch_jax
from switch_jax.checkpointing import load_parameters
from switch_jax.cli import main
from switch_jax.config import ModelConfig
from switch_jax.conversion.formats import open_source

REPOSITORY = Path(switch_jax.__file__).parents[1]
ORACLE = REPOSITORY / "tests/model/oracle"
# 1,000 pieces, to which come 100 sentinels; of the second's 256 are bytes.
VOCABULARY = REPOSITORY / "tasks/data/english_1000.model"
WITH_BYTES = REPOSITORY / "benchmarks/corpora/code_1000.model"

CONFIG = {
    "model_type": "switch_transformers",
    **json.loads((ORACLE / "nodrop_tied.json").read_text())["config"],
}
TENSORS = load_file(ORACLE / "nodrop_tied.weights.safetensors")
ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")

# The same model with an embedding row for each id of the vocabulary.
WIDE = {**CONFIG, "vocab_size": 1152}
TABLE = np.random.default_rng(0).normal(size=(1152, 32)).astype(np.float32)
WIDE_TENSORS = {
    name: TABLE if tensor.shape == (128, 32) else tensor for name, tensor in TENSORS.items()
}


def write_folder(path, config=CONFIG, tensors=TENSORS):
    """A folder with config.json and model.safetensors."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    save_file(tensors, path / "model.safetensors")
    return path


def with_vocabulary(path, vocabulary=VOCABULARY):
    """The folder with a SentencePiece model; its embedding has 1,100 rows or more."""
    shutil.copyfile(vocabulary, path / "spiece.model")
    return path


def without_special_tokens(text):
    """A text of ours, as transformers decodes it with `skip_special_tokens`."""
    return re.sub(r" ?<extra_id_\d+>| ⁇ ", "", text)


def whole(source):
    """All parameters of an opened checkpoint, as NumPy arrays."""
    source.check_model(ModelConfig(**source.architecture))
    return jax.tree.map(lambda p: p[(slice(None),) * len(p.shape)], source.parameters)


def read(path):
    """The same of what is at a path."""
    return whole(open_source(path))


def parameters_of(run, like):
    """The parameters of a run, with the shapes of these, on one device."""
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, np.float32, sharding=one), like)
    return load_parameters(run, abstract)


def assert_equal(parameters, expected):
    """The same bits, in float32."""
    assert jax.tree.structure(parameters) == jax.tree.structure(expected)
    for (path, array), other in zip(
        jax.tree_util.tree_leaves_with_path(parameters), jax.tree.leaves(expected), strict=True
    ):
        assert array.dtype == np.float32, path
        np.testing.assert_array_equal(array, other, err_msg=str(path))


def convert(*arguments):
    """`switch_jax convert`, which must succeed."""
    assert main(["convert", *map(str, arguments)]) == 0
    return Path(arguments[1])
