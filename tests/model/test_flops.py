"""Parameters and products, counted by hand."""

import dataclasses

import pytest

from switch_jax.config import ModelConfig
from switch_jax.model.flops import (
    active_parameter_count,
    forward_flops,
    needed_slots,
    parameter_count,
    training_flops,
)
from switch_jax.model.groups import training_groups

LENGTHS = {"inputs": 16, "targets": 3}


def _model(**changes):
    """V 10, D 4, F 8, K 3, H 2; ReLU."""
    sizes = {"num_embeddings": 10, "embed_dim": 4, "mlp_dim": 8, "head_dim": 3, "num_heads": 2}
    layers = {"num_encoder_layers": 2, "num_decoder_layers": 2}
    return ModelConfig(**{**sizes, **layers, **changes})


def _more(count, model, other):
    """By how much more the model has than the other, with 16 input and 3 target tokens."""
    return count(model, LENGTHS) - count(other, LENGTHS)


def test_the_flops_of_t5_base_are_those_of_table_9():
    """124B FLOPs a token, of 12 layers; counted by hand."""
    t5_base = ModelConfig(
        num_embeddings=32128, embed_dim=768, mlp_dim=3072, head_dim=64, num_heads=12,
        num_encoder_layers=12, num_decoder_layers=12,
    )  # fmt: skip
    assert forward_flops(t5_base, {"inputs": 512, "targets": 114}) == pytest.approx(
        124.6e9, rel=5e-4
    )


def test_parameter_count():
    """One encoder and two decoder layers; gated, untied logits."""
    model = _model(
        activation="gated-gelu", tie_embeddings=False, relative_position_buckets=8,
        num_encoder_layers=1,
    )  # fmt: skip
    attention = 4 * (4 * 6) + 4  # 4 matrices [D, H K] or back, and the norm
    feed_forward = 3 * (4 * 8) + 4
    encoder = attention + feed_forward
    decoder = 2 * (2 * attention + feed_forward)
    around = 2 * (10 * 4) + 2 * 4 + 2 * (8 * 2)  # embedding and logits, last norms, biases
    assert parameter_count(model) == encoder + decoder + around

    sparse = dataclasses.replace(model, num_encoder_layers=2, num_experts=5, expert_mlp_dim=7)
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


def test_a_token_meets_all_parameters_but_those_of_other_experts():
    """One layer of each stack has 5 experts in both sublayers; gated, F of experts 7."""
    dense = _model(activation="gated-gelu")
    assert active_parameter_count(dense) == parameter_count(dense)
    sparse = dataclasses.replace(dense, num_experts=5, expert_mlp_dim=7, expert_sublayers="both")
    # Of attention 2 projections [D, F] and outputs [F, H K] of queries and keys; 3 matrices.
    expert = 7 * (2 * 4 + 2 * 6) + 3 * (4 * 7)
    assert active_parameter_count(sparse) == parameter_count(sparse) - 2 * 4 * expert
    two = dataclasses.replace(sparse, num_selected_experts=2)
    assert active_parameter_count(two) == parameter_count(sparse) - 2 * 3 * expert


def test_top_1_experts_as_large_as_a_dense_layer_add_their_routers_alone():
    """One layer of each stack has 16 experts."""
    dense = _model()
    sparse = dataclasses.replace(dense, num_experts=16)
    assert active_parameter_count(sparse) == parameter_count(dense) + 2 * 4 * 16


def test_where_experts_choose_the_mean_token_meets_as_many_as_the_capacity_factor():
    """One layer of the encoder has 4 experts."""
    model = _model(num_experts=4, num_decoder_sparse_layers=0, train_expert_capacity_factor=1.5)
    choosing = dataclasses.replace(model, encoder_router_type="experts_choose")
    half_an_expert = 4 * 8
    assert active_parameter_count(choosing) == active_parameter_count(model) + half_an_expert


def test_training_flops():
    """One layer a stack, gated; 3 input and 2 target tokens."""
    model = _model(num_encoder_layers=1, num_decoder_layers=1, activation="gated-gelu")
    encoder = 3 * (4 * 4 * 6 + 3 * 4 * 8)  # q, k, v, out; three matrices
    decoder = 2 * (4 * 4 * 6 + 2 * 4 * 6 + 3 * 4 * 8)  # and q and out of cross-attention
    keys_and_values = 3 * 2 * 4 * 6  # of cross-attention, of the input tokens
    logits = 2 * 4 * 10
    pairs = 2 * 6 * (3 * 3 + 2 * 2 + 2 * 3)
    products = encoder + decoder + keys_and_values + logits + pairs
    assert training_flops(model, {"inputs": 3, "targets": 2}) == 6 * products


def test_grouped_heads_have_smaller_keys_and_values():
    """One head of keys and values in place of two, of size 3; 2 + 2 layers, D 4."""
    model = _model()
    grouped = dataclasses.replace(model, num_key_value_heads=1)
    saved = 2 * 4 * 3  # of the key's and the value's matrix
    assert parameter_count(model) - parameter_count(grouped) == (2 + 2 * 2) * saved
    assert _more(forward_flops, model, grouped) == 2 * saved * (2 * 16 + 2 * 2 * 3)
    # Those of cross-attention are for the inputs, which the paper does not say.
    assert _more(training_flops, model, grouped) == 6 * saved * (2 * 16 + 2 * 3 + 2 * 16)
    experts = {"num_experts": 4, "expert_mlp_dim": 5, "expert_sublayers": "attention"}
    model, grouped = (dataclasses.replace(m, **experts) for m in (model, grouped))
    # One layer of each stack is dense; in the other an expert makes keys that are values too.
    dense, expert = saved * (16 + 3 + 2 * 16), 5 * 3 * (16 + 3)
    assert _more(training_flops, model, grouped) == pytest.approx(6 * (dense + expert))


def test_empty_slots_cost_what_full_ones_do():
    model = _model(
        num_experts=4, group_size=64, train_expert_capacity_factor=1.25, min_expert_capacity=1
    )
    # 4 rows of 16 input tokens: 64 / 4 x 1.25 = 20 slots; of 3 target tokens: 12 / 4 x 1.25 -> 4.
    groups = training_groups(model, 4, LENGTHS)
    slots = {stack: found.capacity_factor for stack, found in groups.items()}
    assert slots == {"encoder": 1.25, "decoder": 16 / 12}
    empty = training_flops(model, LENGTHS, slots) - training_flops(model, LENGTHS)
    assert empty == pytest.approx(6 * 2 * 4 * 8 * (16 * 0.25 + 3 / 3))


def test_each_of_a_tokens_experts_counts_as_far_as_there_are_slots():
    """F of experts 5."""
    matrices, tokens = 2 * 4 * 5, 16 + 3
    one = _model(num_experts=4, expert_mlp_dim=5, train_expert_capacity_factor=1.25)
    few = dataclasses.replace(one, num_selected_experts=2)  # 1.25 slots for each token
    assert _more(training_flops, few, one) == pytest.approx(6 * matrices * tokens * 0.25)
    two = dataclasses.replace(few, train_expert_capacity_factor=2.0)
    assert _more(training_flops, two, one) == pytest.approx(6 * matrices * tokens)
    # The paper's count leaves the capacity out.
    assert _more(forward_flops, two, one) == 2 * matrices * tokens
    shared, matrices = dataclasses.replace(two, shared_expert_mlp_dim=3), 2 * 4 * 3
    assert _more(training_flops, shared, two) == pytest.approx(6 * matrices * tokens)
    assert _more(forward_flops, shared, two) == 2 * matrices * tokens
    assert parameter_count(shared) - parameter_count(two) == 2 * matrices


@pytest.mark.parametrize(("sublayers", "is_sparse"), [("attention", False), ("both", True)])
def test_experts_in_attention_are_counted(sublayers, is_sparse):
    """F of experts 5; 2 + 2 layers, of which 1 + 1 have experts."""
    model = _model(
        num_experts=4, expert_mlp_dim=5, num_selected_experts=2, train_expert_capacity_factor=1.5
    )
    experts, plain = dataclasses.replace(model, expert_sublayers=sublayers), model
    if not is_sparse:
        plain = dataclasses.replace(model, num_experts=0, num_selected_experts=1)
    expert, replaced = 4 * 5 + 2 * 5 * 6, 3 * 4 * 6  # the matrices of query, key and value
    assert _more(forward_flops, experts, plain) == 2 * (16 + 3) * (2 * expert - replaced)
    products = (16 + 3) * (1.5 * expert + 4 * 4 - replaced)
    assert _more(training_flops, experts, plain) == pytest.approx(6 * products)


def test_where_experts_choose_all_slots_are_needed():
    """Two layers of the encoder, the last with experts; a layer of the decoder without."""
    model = _model(
        num_decoder_layers=1, num_experts=4, num_decoder_sparse_layers=0,
        train_expert_capacity_factor=1.5, eval_expert_capacity_factor=2.0,
    )  # fmt: skip
    choosing = dataclasses.replace(model, encoder_router_type="experts_choose")
    products = 2 * 4 * 8 * 16 * 0.5  # 16 input tokens, each through half an expert more
    assert _more(training_flops, choosing, model) == pytest.approx(6 * products)
    # As the paper counts, too: a token meets 1.5 experts.
    assert _more(forward_flops, choosing, model) == pytest.approx(2 * products)
    # What the factor of evaluation is does not matter to them.
    assert needed_slots(choosing, training=False) == {"encoder": 1.5, "decoder": 1.0}
    assert needed_slots(model, training=False) == {"encoder": 1.0, "decoder": 1.0}
