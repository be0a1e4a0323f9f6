"""config.json of Qwen3 and ModelConfig: each field, and what one of them cannot say."""

import dataclasses
import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file

from switch_jax import gin_config
from switch_jax.config import Config, DataConfig, LossConfig, ModelConfig, RunConfig
from switch_jax.conversion.formats import open_source
from switch_jax.conversion.hugging_face import export
from switch_jax.conversion.hugging_face.model_config import config_json
from switch_jax.conversion.hugging_face.qwen3 import QWEN3
from switch_jax.conversion.source_to_gin import source_to_gin
from switch_jax.run_folder import RunFolder, read_run_config
from switch_jax.utils.errors import UserError
from tests.conversion.folders import convert, with_vocabulary, write_folder

SIZES = {
    "vocab_size": 1152, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "hidden_act": "silu",
    "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
}  # fmt: skip
MOE = {
    **SIZES, "model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 10, "norm_topk_prob": True, "decoder_sparse_step": 1,
    "mlp_only_layers": [], "rope_theta": 1000000, "rope_scaling": None, "attention_bias": False,
    "use_sliding_window": False, "sliding_window": None, "torch_dtype": "bfloat16",
}  # fmt: skip
MODEL = ModelConfig(
    num_embeddings=1152, embed_dim=16, mlp_dim=24, head_dim=6, num_heads=4, num_key_value_heads=2,
    num_encoder_layers=0, num_decoder_layers=4, positions="rotary", qk_norm=True,
    activation="swiglu", tie_embeddings=False, num_experts=4, expert_mlp_dim=10,
)  # fmt: skip


def run_of(model, **parts):
    data = DataConfig("tiny_copy", {"inputs": 8, "targets": 24})
    return Config(RunConfig("run", 10, 8), model, data, **parts)


def changed(**changes):
    """The config, without the keys that are None here."""
    return {name: x for name, x in {**MOE, **changes}.items() if x is not None}


def tensors_of(config):
    """Random tensors of a config, by the names and shapes that docs of the format give."""
    dim, heads = config["hidden_size"], config["head_dim"]
    queries, keys = (config[f"num_{n}_heads"] * heads for n in ("attention", "key_value"))
    table = [config["vocab_size"], dim]
    shapes = {"model.embed_tokens": table, "model.norm": [dim], "lm_head": table}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        shapes |= {f"{layer}.{n}_layernorm": [dim] for n in ("input", "post_attention")}
        shapes |= {f"{layer}.self_attn.{n}_norm": [heads] for n in "qk"}
        shapes |= {f"{layer}.self_attn.{n}_proj": [keys, dim] for n in "kv"}
        shapes |= {
            f"{layer}.self_attn.q_proj": [queries, dim],
            f"{layer}.self_attn.o_proj": [dim, queries],
        }
        names, size = [f"{layer}.mlp"], config["intermediate_size"]
        if config["model_type"] == "qwen3_moe" and (i + 1) % config["decoder_sparse_step"] == 0:
            size = config["moe_intermediate_size"]
            names = [f"{layer}.mlp.experts.{e}" for e in range(config["num_experts"])]
            shapes[f"{layer}.mlp.gate"] = [config["num_experts"], dim]
        for name in names:
            shapes |= {f"{name}.{n}_proj": [size, dim] for n in ("gate", "up")}
            shapes[f"{name}.down_proj"] = [dim, size]
    rng = np.random.default_rng(0)
    return {f"{n}.weight": rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}


def test_a_folder_of_version_4():
    assert QWEN3.architecture(MOE) == {
        "num_embeddings": 1152, "embed_dim": 16, "mlp_dim": 24, "head_dim": 6, "num_heads": 4,
        "num_key_value_heads": 2, "num_encoder_layers": 0, "num_decoder_layers": 4,
        "positions": "rotary", "rotary_base": 1e6, "qk_norm": True, "activation": "swiglu",
        "tie_embeddings": False, "norm_epsilon": 1e-6, "activation_dtype": "bfloat16",
        "num_experts": 4, "num_selected_experts": 2, "normalize_gates": True, "expert_mlp_dim": 10,
        "sparse_step": 1,
        # No token is dropped: an expert has a slot for each.
        "eval_expert_capacity_factor": 4.0, "train_expert_capacity_factor": 2.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"num_experts": None, "num_local_experts": 4}, {"num_experts": 4}),
        (
            {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
            {"rotary_base": 500.0},
        ),
        ({"rope_theta": None}, {"rotary_base": 10_000.0}),  # as transformers takes it
        ({"head_dim": None}, {"head_dim": 4}),
        ({"model_type": "qwen3", "head_dim": None}, {"head_dim": 128}),
        ({"norm_topk_prob": False}, {"normalize_gates": False}),
        ({"decoder_sparse_step": 2}, {"sparse_step": 2}),
        (
            {"mlp_only_layers": [0, 1]},
            {"num_decoder_sparse_layers": 2, "decoder_sparse_layout": "top"},
        ),
        ({"mlp_only_layers": [0, 1, 2, 3]}, {"num_experts": 0}),
        ({"model_type": "qwen3"}, {"num_experts": 0}),
        ({"sliding_window": 4096}, {}),  # which is not in use
        ({"tie_word_embeddings": True}, {"tie_embeddings": False}),
    ],
)
def test_the_spellings_of_config_json(changes, fields):
    config = changed(**changes)
    read = QWEN3.architecture(config)
    assert {name: read[name] for name in fields} == fields
    assert all(name in config for name in QWEN3.whole_numbers(config))
    ModelConfig(**read)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_bias": True}, "attention_bias is True: a model of ours has False"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu': a model of ours has 'silu'"),
        (
            {"use_sliding_window": True, "sliding_window": 4096},
            "use_sliding_window is true: attention of ours has no sliding_window of 4096 tokens",
        ),
        (
            {"layer_types": ["full_attention", "sliding_attention"]},
            r"layer_types is \['full_attention', 'sliding_attention'\]: ours are all",
        ),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4.0}},
            r"rope_scaling is {'type': 'yarn', 'factor': 4.0}: ours has the rope_type 'default'",
        ),
        ({"rope_parameters": 5}, "rope_parameters is 5: ours has the rope_type 'default' alone"),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 5000.0}}},
            "rope_parameters has {'rope_theta': 5000.0} for 'full_attention': ours has one rope_th",
        ),
        ({"norm_topk_prob": "false"}, "norm_topk_prob is 'false', neither true nor false"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false', neither true nor"),
        ({"head_dim": 0}, "head_dim = 0: it must be at least 1"),
        ({"num_experts_per_tok": 1}, "norm_topk_prob is true and num_experts_per_tok 1, so that"),
        ({"mlp_only_layers": [1]}, r"layers with experts are \[0, 2, 3\] of the 4 of the decoder"),
        ({"mlp_only_layers": 1}, "mlp_only_layers is 1, no list"),
        ({"num_hidden_layers": 10**12}, "num_decoder_layers = 1000000000000: it must be at most"),
        ({"moe_intermediate_size": None}, "moe_intermediate_size is None, no whole number"),
        ({"num_experts": None}, "num_local_experts is None, no whole number"),
        ({"model_type": "mixtral"}, "of the type 'mixtral'; those that can be converted are swi"),
        ({"model_type": "olmoe"}, "of the type 'olmoe'; those that can be converted are switch_"),
        ({"model_type": "llama"}, "of the type 'llama'; those that can be .*, qwen3_moe, qwen3$"),
    ],
)
def test_what_our_model_cannot_be_is_refused(tmp_path, changes, message):
    (tmp_path / "config.json").write_text(json.dumps(changed(**changes)))
    with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path))}/config.json.* {message}"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("changes", "step", "dense"),
    [
        ({}, 2, []),
        ({"sparse_step": 4}, 4, []),
        ({"sparse_step": 1, "num_selected_experts": 2}, 1, []),
        ({"num_selected_experts": 2, "normalize_gates": False}, 2, []),
        ({"num_decoder_sparse_layers": 3, "decoder_sparse_layout": "bottom"}, 1, [3]),
        ({"num_decoder_sparse_layers": 2, "decoder_sparse_layout": "middle"}, 1, [0, 3]),
        ({"num_decoder_sparse_layers": 1, "decoder_sparse_layout": "top"}, 4, []),
        ({"num_decoder_sparse_layers": 3, "num_decoder_layers": 9}, 3, []),
        ({"rotary_base": 500.0, "norm_epsilon": 1e-5, "router_dtype": "bfloat16"}, 2, []),
        ({"num_key_value_heads": None, "expert_mlp_dim": None}, 2, []),
    ],
)
def test_what_is_written_is_read_back(changes, step, dense):
    model = dataclasses.replace(MODEL, **changes)
    written = config_json(run_of(model), 0)
    assert written["architectures"] == ["Qwen3MoeForCausalLM"]
    assert (written["decoder_sparse_step"], written["mlp_only_layers"]) == (step, dense)
    assert written["norm_topk_prob"] == (
        written["num_experts_per_tok"] > 1 and model.normalize_gates
    )
    assert written["max_position_embeddings"] == 32, "the tokens of inputs and targets in a row"
    read = ModelConfig(**QWEN3.architecture(written))
    assert read.identity == model.identity
    assert (read.activation_dtype, read.router_dtype) == ("bfloat16", model.router_dtype)


def test_a_dense_model_is_a_qwen3():
    written = config_json(run_of(dataclasses.replace(MODEL, num_experts=0, expert_mlp_dim=None)), 0)
    assert written["architectures"] == ["Qwen3ForCausalLM"] and "num_experts" not in written
    written = config_json(run_of(MODEL, loss=LossConfig(aux_loss_factor=0.1)), 0)
    assert written["router_aux_loss_coef"] == 0.1


@pytest.mark.parametrize(
    ("changes", "model_type", "message"),
    [
        ({"positions": "relative_bias"}, None, "POSITIONS 'rotary' -> 'relative_bias'$"),
        ({"activation": "relu"}, None, "ACTIVATION 'swiglu' -> 'relu'$"),
        ({"activation": "gated-gelu"}, None, "ACTIVATION 'swiglu' -> 'gated-gelu'$"),
        ({"qk_norm": False}, None, "QK_NORM True -> False$"),
        ({"tie_embeddings": True}, None, "TIE_EMBEDDINGS False -> True$"),
        ({"shared_expert_mlp_dim": 8}, None, "SHARED_EXPERT_MLP_DIM None -> 8$"),
        ({"expert_sublayers": "both"}, None, "EXPERT_SUBLAYERS 'feed_forward' -> 'both'$"),
        ({"ntlb_rounds": 2}, None, "NTLB_ROUNDS 1 -> 2$"),
        ({"load_balance": "bias"}, None, "LOAD_BALANCE = 'bias': routers of Hugging Face have no"),
        (
            {"num_encoder_layers": 2}, "qwen3_moe",
            "--model_type=qwen3_moe is for a model without an encoder and with experts, and this "
            "one has NUM_ENCODER_LAYERS = 2 and NUM_EXPERTS = 4: take switch_transformers$",
        ),
        ({}, "t5", "with an encoder and without experts, .*_ENCODER_LAYERS = 0 and .* qwen3_moe$"),
        ({}, "qwen3", "without an encoder and without experts, and this one has NUM_ENC"),
    ],
)  # fmt: skip
def test_what_their_class_cannot_express_is_refused(changes, model_type, message):
    with pytest.raises(UserError, match=message):
        config_json(run_of(dataclasses.replace(MODEL, **changes)), 0, model_type)


def test_an_encoder_decoder_with_parts_of_qwen3_is_refused_by_their_names():
    model = dataclasses.replace(MODEL, num_encoder_layers=2, tie_embeddings=True, activation="relu")
    with pytest.raises(
        UserError,
        match="SwitchTransformersForConditionalGeneration of Hugging Face cannot be this model: "
        "NUM_KEY_VALUE_HEADS None -> 2, QK_NORM False -> True, POSITIONS 'relative_bias' -> 'rot",
    ):
        config_json(run_of(model), 0)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen3") / "theirs"
    return with_vocabulary(write_folder(folder, MOE, tensors_of(MOE)))


@pytest.fixture(scope="module")
def run(theirs):
    return convert(theirs, theirs.parent / "run", "--gin.ACTIVATION_DTYPE=float32")


def test_tensors_become_stacked_kernels(theirs):
    tensors, found = tensors_of(MOE), open_source(theirs).parameters["decoder"]["blocks"]["layer_0"]
    experts, attention = found["feed_forward"], found["self_attention"]
    every = slice(None)
    kernel = experts["wi_0"][every, every, every, every]  # [blocks, E, D, F]
    assert kernel.shape == (4, 4, 16, 10)
    name = "model.layers.3.mlp.experts.2.gate_proj.weight"
    np.testing.assert_array_equal(kernel[3, 2], tensors[name].T)
    name = "model.layers.1.self_attn.k_norm.weight"
    np.testing.assert_array_equal(attention["key_norm"]["scale"][every, every][1], tensors[name])


def test_shards_are_written_and_read(run, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "MAX_SHARD_BYTES", 40_000)
    exported = convert(run, tmp_path / "exported")
    index = json.loads((exported / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 3
    expected, found = tensors_of(MOE), dict[str, np.ndarray]()
    for file in files:
        found |= load_file(exported / file)
    assert found.keys() == expected.keys()
    assert all(found[name].tobytes() == expected[name].tobytes() for name in expected)
    again = convert(exported, tmp_path / "again")
    model = read_run_config(RunFolder.at(again)).model
    assert model == read_run_config(RunFolder.at(run)).model
    generation = json.loads((exported / "generation_config.json").read_text())
    # Padding of ended rows is not what a text begins with: else that would count as padding.
    assert generation == {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}


@pytest.mark.parametrize("both", [False, True])
def test_tied_logits_are_read_as_a_copy_of_the_table(tmp_path, both):
    tensors = tensors_of(MOE)
    table = tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    if not both:
        del tensors["lm_head.weight"]
    folder = write_folder(tmp_path / "tied", {**MOE, "tie_word_embeddings": True}, tensors)
    source = open_source(folder)
    source.check_copies()
    np.testing.assert_array_equal(source.parameters["logits"][slice(None), slice(None)], table.T)


def test_damaged_folders_are_named(tmp_path):
    tensors = tensors_of(MOE)
    other = {**tensors, "lm_head.weight": tensors["lm_head.weight"] + 1}
    tied = write_folder(tmp_path / "tied", {**MOE, "tie_word_embeddings": True}, other)
    with pytest.raises(
        UserError, match="lm_head.weight differs from model.embed_tokens.weight, and"
    ):
        open_source(tied).check_copies()
    for name in "lm_head.weight", "model.embed_tokens.weight", "model.layers.2.mlp.gate.weight":
        rest = {n: t for n, t in tensors.items() if n != name}
        folder = write_folder(tmp_path / name, MOE, rest)
        with pytest.raises(UserError, match=rf"1 missing, 0 left over.*\({name} is missing\)"):
            open_source(folder)


def test_a_tokenizer_that_is_not_ours_is_said(tmp_path, capsys):
    dense = {**SIZES, "model_type": "qwen3", "num_hidden_layers": 1}
    folder = write_folder(tmp_path / "theirs", dense, tensors_of(dense))
    (folder / "tokenizer.json").write_text("{}")  # of byte pairs
    converted = convert(folder, tmp_path / "run")
    line = (
        f"{folder} has no spiece.model, so VOCABULARY is None: its ids mean something with a task "
        "alone whose own vocabulary has the same\n"
    )
    assert line in capsys.readouterr().out
    assert "VOCABULARY = None" in (converted / "config.gin").read_text()


@pytest.mark.parametrize(("positions", "row"), [(64, 64), (40960, 1024), (None, 1024)])
def test_a_run_reads_rows_as_long_as_the_model_was_made_for(positions, row, tmp_path):
    """But none that are longer than `runs/pretrain_lm.gin` has them."""
    config = changed(max_position_embeddings=positions)
    source = open_source(write_folder(tmp_path / "theirs", config, tensors_of(config)))
    files, bindings = source_to_gin(source, tmp_path / "run", None)
    found = gin_config.read(files, bindings).config
    assert found.data.task_feature_lengths == {"targets": row}
