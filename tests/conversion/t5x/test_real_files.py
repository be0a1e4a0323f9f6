"""Files that T5X ships as its own test data (testdata/README.md)."""

import gzip
import json
import lzma
import shutil
from pathlib import Path

import jax
import msgpack
import numpy as np
import pytest

from switch_jax.config import ModelConfig
from switch_jax.conversion import t5x
from switch_jax.conversion.t5x.tensors import open_tensors
from switch_jax.model import abstract_parameters
from switch_jax.utils.errors import UserError
from tests.conversion.folders import VOCABULARY, convert, parameters_of

TESTDATA = Path(__file__).parent / "testdata"
EVERYTHING = slice(None)
ATTENTION = ("query", "key", "value", "out")


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


def arrays(tree, path=()):
    """By name the arrays in a msgpack file, each a msgpack of shape, dtype and bytes."""
    found = {}
    for key, child in tree.items():
        if isinstance(child, dict):
            found |= arrays(child, (*path, key))
        elif isinstance(child, msgpack.ExtType) and child.code == 1:
            shape, dtype, data = msgpack.unpackb(child.data)
            found["/".join((*path, key))] = np.frombuffer(data, dtype).reshape(shape)
    return found


def test_a_whole_model(tmp_path):
    folder = tmp_path / "checkpoint_0"
    folder.mkdir()
    packed = (TESTDATA / "test_t5_tiny.checkpoint_0.xz").read_bytes()
    (folder / "checkpoint").write_bytes(lzma.decompress(packed))
    tensors = arrays(content(folder)["optimizer"]["target"])
    run = convert(folder, tmp_path / "run", f"--gin.VOCABULARY={VOCABULARY}")
    sizes = {
        "num_embeddings": 32128, "embed_dim": 8, "mlp_dim": 16, "head_dim": 3, "num_heads": 4,
        "num_encoder_layers": 2, "num_decoder_layers": 2, "activation": "gated-gelu",
        "tie_embeddings": False, "relative_position_buckets": 32, "num_experts": 0,
    }  # fmt: skip
    assert t5x.open_checkpoint(folder).architecture == sizes
    read = parameters_of(run, abstract_parameters(ModelConfig(**sizes)))
    assert sum(p.size for p in jax.tree.leaves(read)) == sum(t.size for t in tensors.values())
    for stack in ("encoder", "decoder"):
        own = read[stack]["blocks"]["layer_0"]  # [blocks, ...], a layer each
        for layer in range(2):
            theirs = f"{stack}/layers_{layer}"
            attention = "attention" if stack == "encoder" else "self_attention"
            names = {f"{attention}/{n}/kernel": own["self_attention"][n] for n in ATTENTION}
            if stack == "decoder":
                names |= {
                    f"encoder_decoder_attention/{n}/kernel": own["cross_attention"][n]
                    for n in ATTENTION
                }
            names |= {f"mlp/{n}/kernel": own["feed_forward"][n] for n in ("wi_0", "wi_1", "wo")}
            names["pre_mlp_layer_norm/scale"] = own["feed_forward_norm"]["scale"]
            for name, values in names.items():
                np.testing.assert_array_equal(values[layer], tensors[f"{theirs}/{name}"])
        bias = tensors[f"{stack}/relpos_bias/rel_embedding"]  # [heads, buckets]
        np.testing.assert_array_equal(read[stack]["relative_position_bias"]["embedding"], bias.T)
        scale = tensors[f"{stack}/{stack}_norm/scale"]
        np.testing.assert_array_equal(read[stack]["final_norm"]["scale"], scale)
    np.testing.assert_array_equal(read["logits"], tensors["decoder/logits_dense/kernel"])
    table = read["token_embedding"]["embedding"]
    np.testing.assert_array_equal(table, tensors["token_embedder/embedding"])
