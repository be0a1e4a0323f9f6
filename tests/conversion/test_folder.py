"""Hugging Face folders that were written by hand: what is read, and what is refused."""

import dataclasses
import json
import os
import pickle
import re

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from switch_jax.config import ModelConfig
from switch_jax.conversion.formats import open_source
from switch_jax.utils.errors import UserError
from tests.conversion.folders import ALIASES, CONFIG, TENSORS, assert_equal, read, write_folder
from tests.model.test_huggingface_oracle import PARAMETERS, ours

OTHERS = {n: t for n, t in TENSORS.items() if n not in ALIASES and n != "shared.weight"}
# Which no layer reads.
UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


@pytest.mark.parametrize(
    "tensors",
    [
        {**TENSORS, UNUSED: np.ones((32, 4), np.float32)},
        *({**OTHERS, name: TENSORS["shared.weight"]} for name in ALIASES[1:]),
    ],
    ids=["all", *ALIASES[1:]],
)
def test_tensors_become_stacked_kernels(tmp_path, tensors):
    """The table under any of its names."""
    assert_equal(read(write_folder(tmp_path / "model", tensors=tensors)), PARAMETERS)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_floats_are_read_as_float32(tmp_path, dtype):
    tensors = {name: tensor.astype(dtype) for name, tensor in TENSORS.items()}
    expected = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    folder = write_folder(tmp_path / "model", tensors=tensors)
    assert_equal(read(folder), ours(expected))
    assert open_source(folder).dtypes == [dtype]


def write_shards(folder, number=2):
    """The tensors in several files with their index."""
    shards = np.array_split(sorted(TENSORS), number)
    files = [f"model-{i:05}-of-{number:05}.safetensors" for i in range(1, number + 1)]
    for file, names in zip(files, shards, strict=True):
        save_file({name: TENSORS[name] for name in names}, folder / file)
    places = {str(n): f for f, names in zip(files, shards, strict=True) for n in names}
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    return [folder / file for file in files]


def rename_in_index(folder, name):
    """Writes the tensors in two files, of which the index has another name for the first."""
    write_shards(folder)
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"][min(index["weight_map"])] = name
    file.write_text(json.dumps(index))


def test_shards_are_read_by_their_index(tmp_path):
    folder = write_folder(tmp_path / "model")
    write_shards(folder)
    assert_equal(read(folder), PARAMETERS)


def test_torch_files_are_read_without_their_code(tmp_path):
    torch = pytest.importorskip("torch")
    folder = write_folder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    tensors = {n: torch.tensor(t).bfloat16() for n, t in TENSORS.items()}
    for name in ALIASES:  # as the released files have it: one storage under four names
        tensors[name] = tensors["shared.weight"]
    expected = {n: t.astype(ml_dtypes.bfloat16).astype(np.float32) for n, t in TENSORS.items()}
    for zipped in True, False:
        torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
        assert_equal(read(folder), ours(expected))


class Pickled:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return (print, ("the code of the pickle ran",))


def test_a_pickle_is_not_run(tmp_path, capsys):
    pytest.importorskip("torch")
    folder = write_folder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Pickled()))
    with pytest.raises(UserError, match="pytorch_model.bin is not a file of tensors that PyTorch"):
        read(folder)
    assert "ran" not in capsys.readouterr().out


def test_torch_is_asked_for_where_it_is_needed(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(UserError, match="PyTorch, which is not installed: pip install torch, or"):
        read(folder)


EXPERT = "encoder.block.1.layer.1.mlp.experts.expert_0.wi.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_ff": 63}, "0 missing, 0 left over, 40 of another shape"),
        ({"d_model": "32"}, "config.json: d_model is '32', no whole number"),
        ({"model_type": "bert"}, "a model of the type 'bert'; those that can be converted are"),
        ({"num_layers": 7, "encoder_sparse_step": 4}, r"experts are \[1, 5\] of the 7 of the enc"),
        ({"router_bias": True}, "router_bias is true: our routers"),
        ({"dense_act_fn": "gelu"}, "the activation 'gelu' is neither relu nor gated-gelu"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path, change, message):
    folder = write_folder(tmp_path / "model", {**CONFIG, **change})
    with pytest.raises(UserError, match=message):
        read(folder)


@pytest.mark.parametrize(
    ("changed", "config", "message"),
    [
        ({EXPERT: None}, {}, rf"1 missing, 0 left over, 0 of another shape \({EXPERT} is missing"),
        ({"a.weight": np.ones(3)}, {}, r"0 missing, 1 left over, .*\(a.weight is left over\)"),
        (
            {EXPERT: TENSORS[EXPERT].T.copy()}, {},
            rf"1 of another shape \({EXPERT} is \[32, 64\] and should be \[64, 32\]",
        ),
        (
            {EXPERT: TENSORS[EXPERT].astype(np.int8)}, {},
            f"{EXPERT} is I8; parameters are read as float32, bfloat16",
        ),
        (
            {"lm_head.weight": TENSORS["shared.weight"] + 1}, {},
            "lm_head.weight differs from shared.weight, and config.json says",
        ),
        (
            {"lm_head.weight": None}, {"tie_word_embeddings": False},
            "has no lm_head.weight, so its logits are",
        ),
    ],
)  # fmt: skip
def test_every_tensor_is_accounted_for(tmp_path, changed, config, message):
    tensors = {n: t for n, t in {**TENSORS, **changed}.items() if t is not None}
    folder = write_folder(tmp_path / "model", {**CONFIG, **config}, tensors)
    with pytest.raises(UserError, match=message):
        read(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: os.truncate(f / "model.safetensors", 100_000),
            "model.safetensors is not a whole safetensors file",
        ),
        (
            lambda f: (f / "model.safetensors").unlink(),
            "has none of the files model.safetensors, model.safetensors.index",
        ),
        (
            lambda f: write_shards(f, 3)[1].unlink(),
            "1 of 3 tensor files .* are not there: model-00002-of-00003.safetens",
        ),
        (
            lambda f: (f / "config.json").write_text("{"),
            r"config.json is not JSON \(Expecting property name",
        ),
        (
            lambda f: (f / "config.json").write_text("[" * 10_000),
            r"config.json is not JSON \(it nests too deeply\)",
        ),
        *(
            (
                lambda f, name=name: rename_in_index(f, name),
                re.escape(f"model is damaged: it has {name!r} as the name of a file; copy"),
            )
            for name in ("model\0.safetensors", "model\udc00.safetensors", 7)
        ),
    ],
)
def test_damaged_files_are_named(tmp_path, damage, message):
    damage(write_folder(tmp_path / "model"))
    with pytest.raises(UserError, match=message):
        read(tmp_path / "model")


LFS_POINTER = b"""version https://git-lfs.github.com/spec/v1
oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393
size 2482493968
"""


def change_header(change):
    """Returns a function that changes the header of a safetensors file's bytes, and no number."""

    def of_content(content):
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        text = json.dumps(change(header)).encode()
        return len(text).to_bytes(8, "little") + text + content[start:]

    return of_content


def change_entry(**fields):
    return change_header(lambda header: {**header, EXPERT: {**header[EXPERT], **fields}})


@pytest.mark.parametrize(
    "change",
    [
        lambda content: LFS_POINTER,
        lambda content: b"<!DOCTYPE html>\n<html></html>\n",
        lambda content: b"",
        lambda content: content[:3],
        lambda content: content[:100],
        change_header(lambda header: [header]),
        change_header(lambda header: {n: e for n, e in header.items() if n != EXPERT}),
        change_entry(data_offsets=[0, 64 * 32 * 4]),
        change_entry(shape=[64, 31]),
        change_entry(shape=[-64, -32]),
        change_entry(shape="12"),
        change_entry(dtype="F33"),
    ],
    ids=[
        *("LFS pointer", "HTML", "empty", "3 bytes", "cut header", "list", "hole", "overlap"),
        *("other shape", "negative shape", "shape of text", "unknown dtype"),
    ],
)
def test_a_damaged_file_of_tensors_is_refused_by_its_header(tmp_path, change):
    file = write_folder(tmp_path / "model") / "model.safetensors"
    file.write_bytes(change(file.read_bytes()))
    refusal = (
        r"model\.safetensors is not a whole safetensors file \(.*\bheader\b.*\): copy it again$"
    )
    with pytest.raises(UserError, match=refusal):
        open_source(tmp_path / "model")


def test_a_run_s_folder_without_its_config_gin_is_named_as_such(tmp_path):
    (tmp_path / "config.json").write_text('{"run": {}, "model": {"num_experts": 4}}')
    message = (
        f"{tmp_path} is neither a run nor a model: it lacks the config.gin of a run, and its "
        "config.json the model_type of a Hugging Face model"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        open_source(tmp_path)


def test_another_model_than_the_run_s_is_named_by_its_fields(tmp_path):
    opened = open_source(write_folder(tmp_path / "model"))
    model = ModelConfig(**opened.architecture, group_size=7)
    opened.check_model(model)
    other = dataclasses.replace(model, num_experts=8, norm_epsilon=1e-5)
    with pytest.raises(
        UserError, match="the gin files describe: NORM_EPSILON 1e-06 -> 1e-05, NUM_EXPERTS 4 -> 8; "
    ):
        opened.check_model(other)
    with pytest.raises(UserError, match="describe: EXPERT_SUBLAYERS 'feed_forward' -> 'both'; "):
        opened.check_model(dataclasses.replace(model, expert_sublayers="both"))
