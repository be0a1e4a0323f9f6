"""T5X checkpoints and Hugging Face folders with the same numbers: what is read, what is refused."""

import re

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.serialization import msgpack_restore, msgpack_serialize

from switch_jax.config import MeshConfig, ModelConfig
from switch_jax.conversion.formats import open_source
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.train_step.state import abstract_state
from switch_jax.utils.errors import UserError
from tests.conversion.folders import CONFIG, TENSORS, assert_equal, read, whole, write_folder
from tests.conversion.t5x.checkpoints import (
    EXPERT,
    SWITCH,
    scanned,
    t5x_tensors,
    tied,
    write_checkpoint,
)
from tests.model.test_huggingface_oracle import PARAMETERS, ours
from tests.storage.copies import copy_files
from tests.trainer.helpers import tiny_config

UNTIED = {**TENSORS, "lm_head.weight": TENSORS["shared.weight"] + 1}


@pytest.mark.parametrize(
    "written",
    [
        {"layout": "inline", "version": 0, "state": False, "step": None},
        {"layout": "local"},
        {"layout": "bucket", "version": 2},
        {"layout": "orbax"},
    ],
    ids=lambda written: "_".join(map(str, written.values())),
)
def test_a_switch_checkpoint_is_the_model_of_its_twin(tmp_path, written):
    folder = write_checkpoint(tmp_path / "checkpoint_500100", tied(SWITCH), **written)
    assert_equal(read(folder), PARAMETERS)
    source, twin = open_source(folder), open_source(write_folder(tmp_path / "twin"))
    assert source.architecture.items() <= twin.architecture.items()
    not_told = {"relative_position_max_distance", "norm_epsilon"}
    assert twin.architecture.keys() - source.architecture.keys() == not_told
    assert source.step == (500100 if written.get("step", 7) is None else 7)
    assert source.dtypes == ["float32"]


@pytest.mark.parametrize(
    "layout", ["inline", *(pytest.param(x, marks=pytest.mark.slow) for x in ("local", "orbax"))]
)
def test_a_checkpoint_in_a_bucket_is_the_same_model(tmp_path, bucket_path, layout):
    folder = write_checkpoint(tmp_path / "checkpoint_7", tied(SWITCH), layout=layout)
    assert_equal(read(copy_files(folder, bucket_path / folder.name)), PARAMETERS)
    assert open_source(bucket_path).step == 7


def dense(is_1_1):
    """A Hugging Face folder's config and tensors: the Switch model with its first experts alone.

    Args:
      is_1_1: it is gated, and its logits are untied, as in T5 1.1.
    """
    tensors = {}
    for name, tensor in (UNTIED if is_1_1 else TENSORS).items():
        if "router" in name or re.search("expert_[1-9]", name):
            continue
        name = name.replace("mlp.experts.expert_0", "DenseReluDense")
        name = name.replace(".mlp.", ".DenseReluDense.")
        if is_1_1 and ".wi." in name:
            for i in range(2):
                tensors[name.replace(".wi.", f".wi_{i}.")] = tensor + i
        else:
            tensors[name] = tensor
    config = {
        **CONFIG,
        "model_type": "t5",
        "feed_forward_proj": "gated-gelu" if is_1_1 else "relu",
        "tie_word_embeddings": not is_1_1,
    }
    return config, tensors


@pytest.mark.parametrize(
    ("twin", "as_written"),
    [
        (dense(is_1_1=False), tied),
        (dense(is_1_1=True), lambda tensors: scanned(tensors, None)),
        (({**CONFIG, "tie_word_embeddings": False}, UNTIED), lambda tensors: scanned(tensors, 2)),
    ],
    ids=["t5", "t5_1_1_scanned", "switch_untied_scanned"],
)
def test_other_models_are_those_of_their_twins(tmp_path, twin, as_written):
    expected = open_source(write_folder(tmp_path / "twin", *twin))
    theirs = as_written(t5x_tensors(twin[1]))
    found = open_source(write_checkpoint(tmp_path / "theirs", theirs))
    assert found.architecture.items() <= expected.architecture.items()
    assert_equal(whole(found), whole(expected))


def test_gated_experts_in_every_layer(tmp_path):
    """As Switch-C places them; the layers of a scan are blocks of one."""
    tensors = {}
    for name, tensor in SWITCH.items():
        layer = re.match(r"(\w+)/layers_(\d+)/mlp/", name)
        if layer and int(layer[2]) % 2 == 0:
            continue
        names = {name, re.sub(r"layers_(\d+)/mlp", lambda m: f"layers_{int(m[1]) - 1}/mlp", name)}
        for copy in names:
            if "/wi/" in copy:
                tensors |= {copy.replace("/wi/", f"/wi_{i}/"): tensor + i for i in range(2)}
            else:
                tensors[copy] = tensor
    plain = read(write_checkpoint(tmp_path / "plain", tensors))
    blocks = read(write_checkpoint(tmp_path / "scanned", scanned(tensors, 1)))
    assert_equal(blocks, plain)
    layer = plain["encoder"]["blocks"]["layer_0"]["feed_forward"]
    expected = PARAMETERS["encoder"]["blocks"]["layer_1"]["feed_forward"]
    np.testing.assert_array_equal(layer["wi_1"], np.repeat(expected["wi_0"] + 1, 2, axis=0))
    np.testing.assert_array_equal(layer["router"], np.repeat(expected["router"], 2, axis=0))


def test_bfloat16_is_read_as_float32(tmp_path):
    rounded = {n: t.astype(ml_dtypes.bfloat16) for n, t in tied(SWITCH).items()}
    folder = write_checkpoint(tmp_path / "theirs", rounded, layout="local")
    expected = {n: t.astype(ml_dtypes.bfloat16).astype(np.float32) for n, t in TENSORS.items()}
    assert_equal(read(folder), ours(expected))
    assert open_source(folder).dtypes == ["bfloat16"]


def test_a_path_is_a_folder_a_file_or_the_folder_of_one_checkpoint(tmp_path):
    folder = write_checkpoint(tmp_path / "model/checkpoint_7", tied(SWITCH), layout="bucket")
    (tmp_path / "model/train").mkdir()
    for path in (folder, folder / "checkpoint", tmp_path / "model"):
        assert_equal(read(path), PARAMETERS)
        assert str(open_source(path)) == f"{path}, a T5X checkpoint of step 7"
    write_checkpoint(tmp_path / "model/checkpoint_10", tied(SWITCH))
    with pytest.raises(UserError, match="2 T5X checkpoints, as checkpoint_10, checkpoint_7: name"):
        open_source(tmp_path / "model")
    assert open_source(tmp_path) is None
    orbax = tmp_path / "orbax/checkpoint_9"  # its file lies one folder deeper
    write_checkpoint(orbax / "state", tied(SWITCH), layout="orbax", step=None)
    assert_equal(read(orbax), PARAMETERS)
    assert open_source(tmp_path / "orbax").step == 9


def test_headers_that_were_not_copied_are_in_the_msgpack_file(tmp_path):
    folder = write_checkpoint(tmp_path / "theirs", tied(SWITCH), layout="local")
    for header in folder.glob("*/.zarray"):
        header.unlink()
    assert_equal(read(folder), PARAMETERS)


def test_a_relative_bias_of_each_layer_has_to_be_that_of_all(tmp_path):
    tensors = scanned(t5x_tensors(dense(is_1_1=True)[1]), None, per_layer_bias=True)
    found = read(write_checkpoint(tmp_path / "equal", tensors))
    bias = PARAMETERS["decoder"]["relative_position_bias"]["embedding"]
    np.testing.assert_array_equal(found["decoder"]["relative_position_bias"]["embedding"], bias)
    changed = tensors["decoder/decoder/relpos_bias/rel_embedding"].copy()
    changed[:, 2] += 1
    tensors["decoder/decoder/relpos_bias/rel_embedding"] = changed
    folder = write_checkpoint(tmp_path / "differing", tensors)
    with pytest.raises(UserError, match="decoder/layers_2/relpos_bias/.* differs from .*one relat"):
        read(folder)


def test_each_device_reads_its_part(tmp_path):
    tensors = scanned(tied(SWITCH), 2)
    source = open_source(write_checkpoint(tmp_path / "theirs", tensors, layout="local"))
    config = tiny_config(ModelConfig(**source.architecture), mesh=MeshConfig(2, 2, 2))
    abstract = abstract_state(config, make_mesh(config.mesh)).parameters
    parameters = source.load(abstract)
    assert_equal(parameters, PARAMETERS)
    assert jax.tree.map(lambda x: x.sharding, parameters) == jax.tree.map(
        lambda s: s.sharding, abstract
    )
    wi = parameters["encoder"]["blocks"]["layer_1"]["feed_forward"]["wi_0"]
    assert wi.addressable_shards[0].data.shape == (2, 2, 32, 32)


QUERY = "encoder/layers_0/attention/query/kernel"


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        (EXPERT, SWITCH[EXPERT][:3], "7 left over, 4 of another shape .*wi/kernel/3 is left over"),
        (QUERY, None, f"{QUERY} is missing: every encoder-decoder of T5X has it"),
        (QUERY, SWITCH[QUERY][:, None], rf"{QUERY} is \[32, 1, 32\] and should be \[feat"),
    ],
)
def test_another_model_is_refused(tmp_path, name, changed, message):
    tensors = {n: t for n, t in {**tied(SWITCH), name: changed}.items() if t is not None}
    folder = write_checkpoint(tmp_path / "theirs", tensors)
    with pytest.raises(UserError, match=message):
        read(folder)


def test_an_encoder_with_experts_alone_is_refused(tmp_path):
    tensors = {n: t for n, t in tied(SWITCH).items() if not n.startswith("decoder/")}
    folder = write_checkpoint(tmp_path / "theirs", tensors)
    with pytest.raises(UserError, match="num_decoder_layers = 0: it must be at least 1"):
        read(folder)


def test_experts_in_the_middle_of_a_stack(tmp_path):
    """The decoder without its last layer: of its three, the second has experts."""
    tensors = {n: t for n, t in tied(SWITCH).items() if not n.startswith("decoder/layers_3/")}
    source = open_source(write_checkpoint(tmp_path / "theirs", tensors))
    assert source.architecture["decoder_sparse_layout"] == "middle"
    model = ModelConfig(**source.architecture)
    assert [stack.sparse_layers for stack in model.stacks] == [(1, 3), (1,)]
    router = whole(source)["decoder"]["blocks_1"]["layer_0"]["feed_forward"]["router"]
    theirs = tensors["decoder/layers_1/mlp/router/router_weights/w/kernel"]
    np.testing.assert_array_equal(router[0], theirs)


def test_the_folder_of_a_spec_lies_beside_the_msgpack_file(tmp_path):
    """Whatever path the spec has."""
    folder = write_checkpoint(tmp_path / "theirs", tied(SWITCH), layout="bucket")
    tree = msgpack_restore((folder / "checkpoint").read_bytes())
    table = tree["optimizer"]["target"]["token_embedder"]["embedding"]
    for prefix in ("/gone/model/checkpoint_7.tmp-3/", "../"):
        table["path"] = f"{prefix}target.token_embedder.embedding/"
        (folder / "checkpoint").write_bytes(msgpack_serialize(tree))
        assert_equal(read(folder), PARAMETERS)
