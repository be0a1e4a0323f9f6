import dataclasses

import pytest

from switch_jax.config import ModelConfig
from switch_jax.model.flops import (
    forward_flops,
    needed_slots,
    parameter_count,
    training_flops,
)
from switch_jax.model.groups import training_groups


def test_training_flops_by_hand():
    """One layer a stack, D 4, F 8, H x K = 6, V 10, gated; 3 input and 2 target tokens."""
    model = ModelConfig(
        num_embeddings=10, embed_dim=4, mlp_dim=8, head_dim=3, num_heads=2, num_encoder_layers=1,
        num_decoder_layers=1, activation="gated-gelu",
    )  # fmt: skip
    encoder = 3 * (4 * 4 * 6 + 3 * 4 * 8)  # q, k, v, out; three matrices
    decoder = 2 * (4 * 4 * 6 + 2 * 4 * 6 + 3 * 4 * 8)  # and q and out of cross-attention
    keys_and_values = 3 * 2 * 4 * 6  # of cross-attention, of the input tokens
    logits = 2 * 4 * 10
    pairs = 2 * 6 * (3 * 3 + 2 * 2 + 2 * 3)
    products = encoder + decoder + keys_and_values + logits + pairs
    assert training_flops(model, 3, 2) == 6 * products


def test_empty_slots_cost_what_full_ones_do():
    model = ModelConfig(
        num_embeddings=10, embed_dim=4, mlp_dim=8, head_dim=3, num_heads=2, num_encoder_layers=2,
        num_decoder_layers=2, num_experts=4, group_size=64, train_expert_capacity_factor=1.25,
        min_expert_capacity=1,
    )  # fmt: skip
    # 4 rows of 16 input tokens: 64 / 4 x 1.25 = 20 slots; of 3 target tokens: 12 / 4 x 1.25 -> 4.
    groups = training_groups(model, 4, (16, 3))
    slots = groups["encoder"].capacity_factor, groups["decoder"].capacity_factor
    assert slots == (1.25, 16 / 12)
    empty = training_flops(model, 16, 3, slots) - training_flops(model, 16, 3)
    assert empty == pytest.approx(6 * 2 * 4 * 8 * (16 * 0.25 + 3 / 3))


def test_each_of_a_tokens_experts_counts_as_far_as_there_are_slots():
    sizes = {
        "num_embeddings": 10, "embed_dim": 4, "mlp_dim": 8, "head_dim": 3, "num_heads": 2,
        "num_encoder_layers": 2, "num_decoder_layers": 2, "num_experts": 4,
    }  # fmt: skip
    matrices, tokens = 2 * 4 * 8, 16 + 3
    one = ModelConfig(**sizes, train_expert_capacity_factor=1.25)
    two = ModelConfig(**sizes, train_expert_capacity_factor=1.25, num_selected_experts=2)
    more = training_flops(two, 16, 3) - training_flops(one, 16, 3)
    assert more == pytest.approx(6 * matrices * tokens * 0.25)  # 1.25 slots for each token
    two = ModelConfig(**sizes, train_expert_capacity_factor=2.0, num_selected_experts=2)
    more = training_flops(two, 16, 3) - training_flops(one, 16, 3)
    assert more == pytest.approx(6 * matrices * tokens)
    shared = dataclasses.replace(two, shared_expert_mlp_dim=3)
    more = training_flops(shared, 16, 3) - training_flops(two, 16, 3)
    assert more == pytest.approx(6 * (2 * 4 * 3) * tokens)
    assert forward_flops(shared, 16, 3) - forward_flops(two, 16, 3) == 2 * (2 * 4 * 3) * tokens
    assert parameter_count(shared) - parameter_count(two) == 2 * (2 * 4 * 3)
    # The paper's count leaves the capacity out.
    assert forward_flops(two, 16, 3) - forward_flops(one, 16, 3) == 2 * matrices * tokens


@pytest.mark.parametrize(("sublayers", "is_sparse"), [("attention", False), ("both", True)])
def test_experts_in_attention_are_counted(sublayers, is_sparse):
    """D 4, F 8, of experts 5, H x K = 6, E 4; 2 + 2 layers, of which 1 + 1 have experts; ReLU."""
    model = ModelConfig(
        num_embeddings=10, embed_dim=4, mlp_dim=8, expert_mlp_dim=5, head_dim=3, num_heads=2,
        num_encoder_layers=2, num_decoder_layers=2, num_experts=4, num_selected_experts=2,
        train_expert_capacity_factor=1.5,
    )  # fmt: skip
    experts, expert = dataclasses.replace(model, expert_sublayers=sublayers), 4 * 5 + 2 * 5 * 6
    plain = model if is_sparse else dataclasses.replace(
        model, num_experts=0, num_selected_experts=1
    )  # fmt: skip
    tokens, replaced = 16 + 3, 3 * 4 * 6  # the matrices of query, key and value
    more = forward_flops(experts, 16, 3) - forward_flops(plain, 16, 3)
    assert more == 2 * tokens * (2 * expert - replaced)
    more = training_flops(experts, 16, 3) - training_flops(plain, 16, 3)
    assert more == pytest.approx(6 * tokens * (1.5 * expert + 4 * 4 - replaced))


def test_where_experts_choose_all_slots_are_needed():
    """Two layers of the encoder, the last with experts; a layer of the decoder without."""
    model = ModelConfig(
        num_embeddings=10, embed_dim=4, mlp_dim=8, head_dim=3, num_heads=2, num_encoder_layers=2,
        num_decoder_layers=1, num_experts=4, num_decoder_sparse_layers=0,
        train_expert_capacity_factor=1.5, eval_expert_capacity_factor=2.0,
    )  # fmt: skip
    choosing = dataclasses.replace(model, encoder_router_type="experts_choose")
    # 16 input tokens, each through half an expert more.
    more = training_flops(choosing, 16, 3) - training_flops(model, 16, 3)
    assert more == pytest.approx(6 * 2 * 4 * 8 * 16 * 0.5)
    # As the paper counts, too: a token meets 1.5 experts.
    more = forward_flops(choosing, 16, 3) - forward_flops(model, 16, 3)
    assert more == pytest.approx(2 * 2 * 4 * 8 * 16 * 0.5)
    # What the factor of evaluation is does not matter to them.
    assert needed_slots(choosing, training=False) == (1.5, 1.0)
    assert needed_slots(model, training=False) == (1.0, 1.0)
