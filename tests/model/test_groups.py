import numpy as np
import pytest
from scipy.stats import binom

from switch_jax.model.groups import training_groups
from switch_jax.train_step.microbatches import check_batch
from tests.trainer.helpers import tiny_config, tiny_model

LENGTHS = {"inputs": 512, "targets": 114}
AT_FACTOR_1 = {"group_size": 2048, "train_expert_capacity_factor": 1.0}


def _model(**changes):
    return tiny_model(
        **{"num_experts": 128, "group_size": 4096, "min_expert_capacity": 4, **changes}
    )


def _groups(**changes):
    """Of 2,048 rows."""
    return training_groups(_model(**changes), 2048, LENGTHS)


@pytest.mark.parametrize(
    ("stack", "changes", "text", "warning"),
    [
        (
            "encoder",
            {"group_size": 8192, "decoder_group_size": 912},
            "8,192 tokens in a group, 80 slots per expert (capacity factor 1.25): "
            "0.13 % dropped at even routing",
            None,
        ),
        (
            "decoder",
            {"group_size": 8192, "decoder_group_size": 912},
            "912 tokens in a group, 9 slots per expert (capacity factor 1.263): "
            "5.64 % dropped at even routing",
            "of evenly routed tokens the decoder drops 5.64 %, where the paper drops under 1 %; a "
            "larger DECODER_GROUP_SIZE or TRAIN_EXPERT_CAPACITY_FACTOR drops fewer",
        ),
        (  # a token goes to its next expert
            "encoder",
            {**AT_FACTOR_1, "ntlb_rounds": 2},
            "2,048 tokens in a group, 16 slots per expert (capacity factor 1)",
            None,
        ),
        (  # 4,096 choices
            "encoder",
            {**AT_FACTOR_1, "num_selected_experts": 2},
            "2,048 tokens in a group, 16 slots per expert (capacity factor 1): "
            "50.00 % of the choices dropped at even routing",
            "each token has 2 experts, and the encoder 1 slots per token: 50.00 % of evenly routed "
            "choices are dropped; a larger TRAIN_EXPERT_CAPACITY_FACTOR has room for them",
        ),
        (
            "encoder",
            {**AT_FACTOR_1, "num_selected_experts": 2, "train_expert_capacity_factor": 2.0},
            "2,048 tokens in a group, 32 slots per expert (capacity factor 2): "
            "6.98 % of the choices dropped at even routing",
            "of evenly routed choices the encoder drops 6.98 %, where the paper drops under 1 %; a "
            "larger GROUP_SIZE or TRAIN_EXPERT_CAPACITY_FACTOR drops fewer",
        ),
        (
            "encoder",
            {**AT_FACTOR_1, "num_selected_experts": 2, "train_expert_capacity_factor": 2.5},
            "2,048 tokens in a group, 40 slots per expert (capacity factor 2.5): "
            "0.70 % of the choices dropped at even routing",
            None,
        ),
        (
            "encoder",
            {"group_size": 2048, "encoder_router_type": "experts_choose", "num_experts": 16},
            "2,048 tokens in a group, of which each expert chooses 160: 1.25 experts a token on "
            "average",
            None,
        ),
    ],
)
def test_groups_are_told_with_what_even_routing_drops(stack, changes, text, warning):
    its = _groups(**changes)[stack]
    assert (str(its), its.warning) == (text, warning)


@pytest.mark.parametrize("choices", [1, 2, 4])
def test_more_than_one_percent_dropped_is_a_warning_whatever_the_number_of_experts(choices):
    """The share dropped is summed here over the binomial distribution of an expert's tokens."""
    tokens, warned = 2048, {}
    for experts in (4, 16, 64, 128):
        for factor in (1.0, 1.25, 1.75, 2.0, 2.5, 4.0, 5.0):
            group = _groups(
                group_size=tokens,
                num_experts=experts,
                num_selected_experts=choices,
                train_expert_capacity_factor=factor,
            )["encoder"]
            load = np.arange(tokens + 1)  # tokens that choose an expert
            surplus = binom.pmf(load, tokens, choices / experts) * (load - group.slots).clip(0)
            warned[experts, factor] = group.warning is not None
            assert warned[experts, factor] == (surplus.sum() > 0.01 * tokens * choices / experts), (
                experts,
                factor,
            )
    assert set(warned.values()) == {True, False}


def test_without_a_size_of_its_own_the_decoder_has_the_encoder_s_in_whole_rows():
    its = _groups(**AT_FACTOR_1, expert_capacity_multiple=1)["decoder"]
    assert its[:3] == (1824, 15, 15 * 128 / 1824)


def test_a_stack_without_experts_has_no_groups():
    """So a size that does not fit its rows is no mistake."""
    assert _groups(num_experts=0) == {}
    model = _model(group_size=512, num_decoder_sparse_layers=0, decoder_group_size=5)
    assert list(training_groups(model, 2048, LENGTHS)) == ["encoder"]
    config = tiny_config(model, lengths=(512, 114))
    check_batch(config, {"data": 1, "expert": 1, "model": 1})
