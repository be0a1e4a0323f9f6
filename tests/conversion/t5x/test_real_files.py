"""Files that T5X ships as its own test data (testdata/README.md)."""

import gzip
import json
import shutil
from pathlib import Path

import jax
import msgpack
import numpy as np
import pytest

from switch_jax.config import ModelConfig
from switch_jax.conversion import t5x
from switch_jax.conversion.t5x.tensors import open_tensors
from switch_jax.errors import UserError
from tests.conversion.t5x.checkpoints import write_checkpoint

TESTDATA = Path(__file__).parent / "testdata"
EVERYTHING = slice(None)


def content(folder):
    """The msgpack file as msgpack alone reads it."""
    return msgpack.unpackb((folder / "checkpoint").read_bytes())


def test_arrays_of_zarr():
    folder = TESTDATA / "tiny_t5/checkpoint_1"
    tensors = open_tensors(folder, content(folder)["optimizer"]["state"]["param_states"])
    shapes = {"bias": ("float32", (5,)), "kernel": ("float64", (10, 5)), "step": ("int32", ())}
    for name, (dtype, shape) in shapes.items():
        tensor = tensors[name]
        assert (tensor.dtype, tensor.shape) == (dtype, shape)
        (chunk,) = (folder / f"state.param_states.{name}").iterdir()
        expected = np.frombuffer(gzip.decompress(chunk.read_bytes()), dtype).reshape(shape)
        np.testing.assert_array_equal(tensor[(EVERYTHING,) * len(shape)], expected)
    np.testing.assert_array_equal(tensors["kernel"][2:4, 1:3], expected_kernel(folder)[2:4, 1:3])


def expected_kernel(folder):
    chunk = (folder / "state.param_states.kernel/0.0").read_bytes()
    return np.frombuffer(gzip.decompress(chunk), "float64").reshape(10, 5)


def test_arrays_of_orbax(tmp_path):
    folder = shutil.copytree(TESTDATA / "tiny_orbax/1", tmp_path / "1")
    leaves = content(folder)["_optimizer"]["state"]["param_states"]
    header = {
        "zarr_format": 2, "shape": [10, 5], "chunks": [10, 5], "dtype": "<f8", "order": "C",
        "compressor": {"id": "zstd", "level": 1}, "fill_value": None, "filters": None,
    }  # fmt: skip
    array = folder / "_optimizer.state.param_states.kernel"
    with pytest.raises(UserError, match=r"\.kernel cannot be read: .*zarray. does not exist"):
        open_tensors(folder, {"kernel": leaves["kernel"]})
    (array / ".zarray").write_text(json.dumps(header))
    tensor = open_tensors(folder, {"kernel": leaves["kernel"]})["kernel"]
    # zstd leaves noise as it is, behind its header.
    expected = np.frombuffer((array / "0.0").read_bytes()[-400:], "<f8").reshape(10, 5)
    np.testing.assert_array_equal(tensor[EVERYTHING, EVERYTHING], expected)


@pytest.mark.parametrize("folder", ["tiny_t5", "tiny_t5/checkpoint_1", "tiny_orbax/1"])
def test_a_checkpoint_without_parameters_is_no_model(folder):
    with pytest.raises(UserError, match="checkpoint holds no parameters: a T5X checkpoint has th"):
        t5x.open_checkpoint(TESTDATA / folder)


def test_the_names_and_shapes_of_a_whole_model(tmp_path):
    rng = np.random.default_rng(0)
    shapes = json.loads((TESTDATA / "test_t5_tiny.shapes.json").read_text())
    tensors = {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}
    found = t5x.open_checkpoint(write_checkpoint(tmp_path / "theirs", tensors, layout="inline"))
    assert found.architecture == {
        "num_embeddings": 32128, "embed_dim": 8, "mlp_dim": 16, "head_dim": 3, "num_heads": 4,
        "num_encoder_layers": 2, "num_decoder_layers": 2, "activation": "gated-gelu",
        "tie_embeddings": False, "relative_position_buckets": 32, "num_experts": 0,
    }  # fmt: skip
    found.check_model(ModelConfig(**found.architecture))
    read = jax.tree.map(lambda p: p[(EVERYTHING,) * len(p.shape)], found.parameters)
    assert sum(p.size for p in jax.tree.leaves(read)) == sum(t.size for t in tensors.values())
    decoder = read["decoder"]["blocks"]["layer_0"]  # [blocks, ...], a layer each
    name = "decoder/layers_1/encoder_decoder_attention/value/kernel"
    np.testing.assert_array_equal(decoder["cross_attention"]["value"][1], tensors[name])
    name = "decoder/layers_0/mlp/wi_1/kernel"
    np.testing.assert_array_equal(decoder["feed_forward"]["wi_1"][0], tensors[name])
    bias = tensors["encoder/relpos_bias/rel_embedding"]  # [heads, buckets]
    np.testing.assert_array_equal(read["encoder"]["relative_position_bias"]["embedding"], bias.T)
    np.testing.assert_array_equal(read["logits"], tensors["decoder/logits_dense/kernel"])
