import dataclasses
import re

import pytest

from switch_jax.config import ModelConfig
from switch_jax.model.groups import training_groups
from switch_jax.train_step.microbatches import check_batch
from tests.trainer.helpers import tiny_config


def _model(**changes):
    sizes = {
        "num_embeddings": 128, "embed_dim": 8, "mlp_dim": 8, "head_dim": 4, "num_heads": 2,
        "num_encoder_layers": 2, "num_decoder_layers": 2, "num_experts": 128,
    }  # fmt: skip
    return ModelConfig(**{**sizes, **changes})


def _percents(groups):
    return [round(100 * its.expected_drop, 2) for its in groups.values()]


def test_each_stack_has_its_own_groups():
    model = _model(group_size=8192, decoder_group_size=2048)
    groups = training_groups(model, 2048, (512, 114))
    assert list(groups) == ["encoder", "decoder"]
    assert groups["encoder"][:3] == (8192, 80, 1.25)
    assert groups["decoder"][:3] == (1824, 18, 18 * 128 / 1824)
    assert _percents(groups) == [0.13, 2.44]
    assert str(groups["encoder"]) == (
        "8,192 tokens in a group, 80 slots per expert (capacity factor 1.25): "
        "0.13 % dropped at even routing"
    )


def test_without_a_size_of_its_own_the_decoder_has_the_encoder_s():
    model = _model(group_size=2048)
    assert model.group_sizes == {"encoder": 2048, "decoder": 2048}
    groups = training_groups(model, 2048, (512, 114))
    assert [(its.tokens, its.slots) for its in groups.values()] == [(2048, 20), (1824, 18)]
    assert _percents(groups) == [2.27, 2.44]


def test_with_two_experts_a_token_the_dropped_choices_are_told():
    """2,048 tokens make 4,096 choices; 2.5 slots per token are enough, and 1 is not."""
    model = _model(num_selected_experts=2, group_size=2048, train_expert_capacity_factor=1.0)
    few = training_groups(model, 2048, (512, 114))["encoder"]
    assert few.slots == 16 and 0.5 < few.expected_drop < 0.51
    assert str(few) == (
        "2,048 tokens in a group, 16 slots per expert (capacity factor 1): "
        f"{100 * few.expected_drop:.2f} % of the choices dropped at even routing"
    )
    assert re.search(
        r"each token has 2 experts, and the encoder 1 slots per token: 50\.\d\d % of evenly routed "
        r"choices are dropped; a larger TRAIN_EXPERT_CAPACITY_FACTOR has room for them",
        few.warning,
    )
    model = dataclasses.replace(model, train_expert_capacity_factor=2.5)
    enough = training_groups(model, 2048, (512, 114))["encoder"]
    assert (enough.slots, enough.warning) == (40, None)


def test_what_even_routing_drops_is_left_out_where_a_token_goes_to_its_next_expert():
    model = _model(ntlb_rounds=2, train_expert_capacity_factor=1.0, group_size=2048)
    groups = training_groups(model, 2048, (512, 114))["encoder"]
    assert (groups.slots, groups.expected_drop, groups.warning) == (16, None, None)
    assert str(groups) == "2,048 tokens in a group, 16 slots per expert (capacity factor 1)"


def test_a_dense_model_has_none():
    assert training_groups(_model(num_experts=0), 2048, (512, 114)) == {}


@pytest.mark.parametrize(("multiple", "slots"), [(8, 16), (1, 15)])
def test_the_effective_factor_is_that_of_the_slots(multiple, slots):
    model = _model(
        group_size=1824, train_expert_capacity_factor=1.0, expert_capacity_multiple=multiple
    )
    its = training_groups(model, 2048, (114, 114))["decoder"]
    assert (its.slots, its.capacity_factor) == (slots, slots * 128 / 1824)


def test_groups_that_drop_more_than_a_hundredth_are_warned_of():
    groups = training_groups(_model(group_size=8192, decoder_group_size=912), 2048, (512, 114))
    assert _percents(groups) == [0.13, 5.64]
    assert groups["encoder"].warning is None
    assert groups["decoder"].warning == (
        "of evenly routed tokens the decoder drops 5.64 %, where the paper drops under 1 %; a "
        "larger DECODER_GROUP_SIZE or TRAIN_EXPERT_CAPACITY_FACTOR drops fewer"
    )


def test_where_experts_choose_the_tokens_have_experts_on_average():
    model = _model(group_size=2048, encoder_router_type="experts_choose", num_experts=16)
    groups = training_groups(model, 2048, (512, 114))
    assert str(groups["encoder"]) == (
        "2,048 tokens in a group, of which each expert chooses 160: 1.25 experts a token on average"
    )
    assert groups["encoder"].warning is None
    assert groups["decoder"].expected_drop is not None


def test_a_stack_without_experts_has_no_groups():
    """So a size that does not fit its rows is no mistake."""
    model = _model(group_size=512, num_decoder_sparse_layers=0, decoder_group_size=5)
    assert list(training_groups(model, 2048, (512, 114))) == ["encoder"]
    config = tiny_config(model, lengths=(512, 114))
    check_batch(config, {"data": 1, "expert": 1, "model": 1})
