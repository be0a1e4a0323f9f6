"""config.json and ModelConfig: each field, and what one of them cannot say."""

import dataclasses

import pytest

from switch_jax.config import LossConfig
from switch_jax.conversion.hugging_face.model_config import config_json
from switch_jax.conversion.hugging_face.t5 import architecture
from switch_jax.train_step.loss import LossWeights
from switch_jax.utils.errors import UserError
from tests.trainer.helpers import rising_weights, tiny_config, tiny_model

T5_SMALL = {  # of 2019, which lacks the fields of later versions
    "model_type": "t5", "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048,
    "num_layers": 6, "num_heads": 8, "relative_attention_num_buckets": 32,
    "layer_norm_epsilon": 1e-06,
}  # fmt: skip
SWITCH_BASE_8 = {
    **T5_SMALL, "model_type": "switch_transformers", "d_model": 768, "d_ff": 3072,
    "num_layers": 12, "num_decoder_layers": 12, "num_heads": 12, "num_experts": 8,
    "num_sparse_encoder_layers": 6, "num_sparse_decoder_layers": 6, "dense_act_fn": "relu",
}  # fmt: skip
SWITCH = tiny_model(num_encoder_layers=4, activation_dtype="bfloat16")


def test_t5_small():
    assert architecture(T5_SMALL) == {
        "num_embeddings": 32128, "embed_dim": 512, "mlp_dim": 2048, "head_dim": 64, "num_heads": 8,
        "num_encoder_layers": 6, "num_decoder_layers": 6, "activation": "relu",
        "tie_embeddings": True, "relative_position_buckets": 32,
        "relative_position_max_distance": 128, "norm_epsilon": 1e-6, "num_experts": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "tied", "activation"),
    [
        ({}, True, "relu"),
        ({"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"}, False, "gated-gelu"),
        # As version 5 of transformers writes T5 1.1.
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, False, "relu"),
        ({"model_type": "mt5", "tie_word_embeddings": True}, False, "gated-gelu"),
        ({**SWITCH_BASE_8, "tie_word_embeddings": False}, False, "relu"),
        ({**SWITCH_BASE_8, "dense_act_fn": "gelu_new", "is_gated_act": True}, True, "gated-gelu"),
    ],
)
def test_tied_logits_and_activations(changes, tied, activation):
    fields = architecture({**T5_SMALL, **changes})
    assert (fields["tie_embeddings"], fields["activation"]) == (tied, activation)


def run_of(model, **parts):
    return tiny_config(model, lengths=(32, 8), **parts)


@pytest.mark.parametrize(
    ("model", "model_type"),
    [
        (dataclasses.replace(SWITCH, sparse_step=1, tie_embeddings=False), "switch_transformers"),
        (dataclasses.replace(SWITCH, num_experts=0, norm_epsilon=1e-5), "t5"),
        (
            dataclasses.replace(
                SWITCH, num_experts=0, tie_embeddings=False, activation="gated-gelu"
            ),
            "mt5",
        ),
    ],
)
def test_what_is_written_is_read_back(model, model_type):
    written = config_json(run_of(model), 0, model_type)
    for name, value in architecture(written).items():
        expected = getattr(model, name)
        assert value == (model.mlp_dim if name == "expert_mlp_dim" else expected), name


def test_the_fields_of_routing():
    model = dataclasses.replace(
        SWITCH, eval_expert_capacity_factor=3.0, jitter_noise=0.02, router_dtype="bfloat16"
    )
    written = config_json(run_of(model, loss=LossConfig(aux_loss_factor=0.1)), step=0)
    assert written["architectures"] == ["SwitchTransformersForConditionalGeneration"]
    assert written["expert_capacity"] == 24  # 32 tokens x 3.0 / 4 experts
    assert (written["router_jitter_noise"], written["router_aux_loss_coef"]) == (0.02, 0.1)
    assert written["router_dtype"] == "bfloat16"
    assert written["num_sparse_encoder_layers"] == 2 and written["num_sparse_decoder_layers"] == 1


def test_the_weights_of_losses_are_those_of_the_step(monkeypatch):
    monkeypatch.setattr(LossWeights, "at", rising_weights)
    run = run_of(SWITCH, loss=LossConfig(aux_loss_factor=0.25, router_z_loss_factor=0.5))
    written = config_json(run, step=3)
    assert (written["router_aux_loss_coef"], written["router_z_loss_coef"]) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("changes", "model_type", "message"),
    [
        ({"activation": "gated-gelu"}, None, "ACTIVATION 'relu' -> 'gated-gelu'$"),
        ({"activation": "swiglu"}, None, "ACTIVATION 'relu' -> 'swiglu'$"),
        ({"num_experts": 0, "activation": "reglu"}, None, "ACTIVATION 'relu' -> 'reglu'$"),
        ({"num_key_value_heads": 1}, None, "NUM_KEY_VALUE_HEADS None -> 1$"),
        ({"qk_norm": True}, None, "QK_NORM False -> True$"),
        (
            {"positions": "rotary", "rotary_base": 1e6}, None,
            "POSITIONS 'relative_bias' -> 'rotary', ROTARY_BASE 10000.0 -> 1000000.0$",
        ),
        ({"load_balance": "bias"}, None, "LOAD_BALANCE = 'bias': routers of Hugging Face have no"),
        ({"encoder_router_type": "experts_choose"}, None, "'tokens_choose' -> 'experts_choose'$"),
        (
            {"num_encoder_layers": 8, "num_decoder_layers": 4, "sparse_step": 4}, None,
            r"the layers \[3, 7\] of the encoder have experts, and Hugging Face has them in all",
        ),
        ({}, "t5", "with an encoder and without experts, and this one .* and NUM_EXPERTS = 4"),
        ({"num_experts": 0}, "switch_transformers", "and with experts, .* = 0: take t5 or mt5$"),
        ({"num_experts": 0}, "mt5", "mT5 never scales the decoder's output, and a model with"),
    ],
)  # fmt: skip
def test_what_their_class_cannot_express_is_refused(changes, model_type, message):
    with pytest.raises(UserError, match=message):
        config_json(run_of(dataclasses.replace(SWITCH, **changes)), 0, model_type)


@pytest.mark.parametrize("num_experts", [0, 4])
def test_a_decoder_alone_is_refused_both_ways(num_experts):
    model = tiny_model(num_encoder_layers=0, num_experts=num_experts)
    model_type = "switch_transformers" if num_experts else "t5"
    with pytest.raises(UserError, match="with an encoder .* has NUM_ENCODER_LAYERS = 0 and NUM_E"):
        config_json(run_of(model), 0, model_type)
    with pytest.raises(UserError, match="^num_layers is 0: .* have an encoder"):
        architecture({**T5_SMALL, "num_layers": 0})
