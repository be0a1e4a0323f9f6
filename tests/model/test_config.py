"""Choices of a model that exclude each other; tests/config has more of them."""

import pytest

from switch_jax.utils.errors import UserError
from tests.trainer.helpers import tiny_model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"relative_position_max_distance": 16},
            r"relative_position_max_distance = 16: it must be above 16, half of relative_p",
        ),
        (
            {"num_experts": 0, "encoder_router_type": "batch_prioritized"},
            r"encoder_router_type = 'batch_prioritized' does not go with NUM_EXPERTS = 0$",
        ),
        (
            {"encoder_router_type": "experts_choose", "num_encoder_sparse_layers": 0},
            r"'experts_choose' does not go with NUM_ENCODER_SPARSE_LAYERS = 0$",
        ),
        (
            {"encoder_router_type": "experts_choose", "load_balance": "bias"},
            r"encoder_router_type = 'experts_choose' does not go with LOAD_BALANCE = 'bias'$",
        ),
        (
            {"encoder_router_type": "experts_choose", "router_policy": "sample"},
            r"encoder_router_type = 'experts_choose' does not go with ROUTER_POLICY = 'sample'$",
        ),
    ],
)
def test_a_contradiction_is_named_with_its_values(changes, message):
    with pytest.raises(UserError, match=message):
        tiny_model(**changes)
