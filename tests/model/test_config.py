import dataclasses

import pytest

from switch_jax.config import ModelConfig
from switch_jax.model.flops import forward_flops, parameter_count
from switch_jax.utils.errors import UserError

BASE = ModelConfig(
    num_embeddings=32128,
    embed_dim=768,
    mlp_dim=3072,
    head_dim=64,
    num_heads=12,
    num_encoder_layers=12,
    num_decoder_layers=12,
)
LARGE = dataclasses.replace(
    BASE, embed_dim=1024, mlp_dim=4096, num_heads=16, num_encoder_layers=24, num_decoder_layers=24
)


def test_parameter_count_by_hand():
    """V, D, F, K, H = 10, 4, 6, 3, 2; one encoder and two decoder layers; gated, untied logits."""
    model = ModelConfig(
        10, 4, 6, 3, 2, 1, 2, "gated-gelu", tie_embeddings=False, relative_position_buckets=8
    )
    attention = 4 * (4 * 6) + 4  # 4 matrices [D, H K] or back, and the norm
    feed_forward = 3 * (4 * 6) + 4
    encoder = attention + feed_forward
    decoder = 2 * (2 * attention + feed_forward)
    around = 2 * (10 * 4) + 2 * 4 + 2 * (8 * 2)  # embedding and logits, last norms, biases
    assert parameter_count(model) == encoder + decoder + around

    sparse = dataclasses.replace(
        model, num_encoder_layers=2, num_experts=5, expert_mlp_dim=7, sparse_step=2
    )
    expert_layer = 5 * 3 * (4 * 7) + 4 * 5 + 4  # experts, router, norm
    encoder += attention + expert_layer
    decoder += expert_layer - feed_forward
    assert parameter_count(sparse) == encoder + decoder + around

    # One router and one set of input projections; 2 output projections [E, F, H K], and `out`.
    attention_experts = 5 * 7 * (2 * 4 + 2 * 6) + 4 * 5 + 6 * 4 + 4
    both = dataclasses.replace(sparse, expert_sublayers="both")
    encoder += attention_experts - attention
    decoder += attention_experts - attention
    assert parameter_count(both) == encoder + decoder + around
    alone = dataclasses.replace(sparse, expert_sublayers="attention")
    encoder += feed_forward - expert_layer
    decoder += feed_forward - expert_layer
    assert parameter_count(alone) == encoder + decoder + around


@pytest.mark.parametrize(
    ("model", "flops"),
    [(BASE, 124.6e9), (LARGE, 424.9e9)],  # Table 9 prints 124B and 425B
)
@pytest.mark.parametrize("experts", [0, 64])
def test_forward_flops_of_table_9(model, flops, experts):
    model = dataclasses.replace(model, num_experts=experts)
    assert forward_flops(model, 512, 114) == pytest.approx(flops, rel=5e-4)


def test_smaller_experts_take_fewer_flops():
    """6 + 6 of the layers are sparse; F falls from 3072 to 1024."""
    narrow = dataclasses.replace(BASE, num_experts=8, expert_mlp_dim=1024)
    saved = 2 * 2 * 768 * (3072 - 1024) * 6 * (512 + 114)
    assert forward_flops(BASE, 512, 114) - forward_flops(narrow, 512, 114) == saved


def test_which_layers_are_sparse():
    model = dataclasses.replace(BASE, num_experts=4, num_decoder_layers=4)
    assert model.sparse_layers == {"encoder": [1, 3, 5, 7, 9, 11], "decoder": [1, 3]}
    every = dataclasses.replace(model, sparse_step=1, num_encoder_layers=3)
    assert every.sparse_layers == {"encoder": [0, 1, 2], "decoder": [0, 1, 2, 3]}
    assert BASE.sparse_layers == {"encoder": [], "decoder": []}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "swish"}, r"activation = 'swish' is not known; write one of relu, gated-"),
        (
            {"activation_dtype": "float16"},
            r"activation_dtype = 'float16' is not known; write one of bfloat16, float32",
        ),
        ({"embed_dim": 0}, r"embed_dim = 0: it must be at least 1"),
        ({"sparse_step": 0, "num_experts": 4}, r"sparse_step = 0: it must be at least 1"),
        ({"num_experts": -1}, r"num_experts = -1: it must be at least 0"),
        ({"decoder_group_size": 0}, r"decoder_group_size = 0: it must be at least 1, or None"),
        ({"expert_mlp_dim": 0}, r"expert_mlp_dim = 0: it must be at least 1, or None"),
        ({"expert_capacity_multiple": 0}, r"expert_capacity_multiple = 0: it must be at least 1"),
        (
            {"eval_expert_capacity_factor": 0.0},
            r"eval_expert_capacity_factor = 0.0: it must be above 0",
        ),
        (
            {"relative_position_max_distance": 16},
            r"relative_position_max_distance = 16: it must be above 16, half of relative_p",
        ),
        ({"scale": -0.1}, r"scale = -0.1: it must be above 0"),
        ({"dropout_rate": 1.0}, r"dropout_rate = 1.0: it must be below 1"),
        (
            {"expert_dropout_rate": -0.1},
            r"expert_dropout_rate = -0.1: it must be at least 0, or None",
        ),
        (
            {"num_experts": 4, "num_decoder_layers": 7},
            r"sparse_step = 2 does not divide the 7 layers of the decoder \(7 % 2 = 1\)$",
        ),
        (
            {"encoder_router_type": "batch_prioritized"},
            r"encoder_router_type = 'batch_prioritized' does not go with NUM_EXPERTS = 0$",
        ),
        (
            {
                "num_experts": 4,
                "encoder_router_type": "experts_choose",
                "num_encoder_sparse_layers": 0,
            },
            r"'experts_choose' does not go with NUM_ENCODER_SPARSE_LAYERS = 0$",
        ),
        (
            {"num_experts": 4, "encoder_router_type": "experts_choose", "load_balance": "bias"},
            r"load_balance = 'bias' does not go with ENCODER_ROUTER_TYPE = 'experts_choose'$",
        ),
        (
            {"num_experts": 4, "encoder_router_type": "experts_choose", "router_policy": "sample"},
            r"router_policy = 'sample' does not go with ENCODER_ROUTER_TYPE = 'experts_choose'$",
        ),
    ],
)
def test_a_mistake_is_named_with_its_value(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(BASE, **changes)


def test_the_number_of_layers_need_not_divide_in_a_dense_model():
    assert dataclasses.replace(BASE, num_decoder_layers=7).blocks["decoder"][0].num_blocks == 7
