import numpy as np
import pytest

from switch_jax.moe import expected_drop, expert_capacity, group_shape
from switch_jax.utils.errors import UserError


@pytest.mark.parametrize(
    ("tokens", "experts", "factor", "limits", "slots"),
    [
        (8192, 128, 1.25, {}, 80),
        (100, 8, 1.25, {}, 16),  # 15.6
        (1824, 128, 1.0, {}, 16),  # 14.25, and 15 is nearly a multiple of 8
        (1824, 128, 1.0, {"multiple": 1}, 15),
        (1824, 128, 1.25, {}, 18),  # 17.8; 24 would be a third more
        (60, 8, 1.0, {}, 8),  # 7.5: rounded down, even routing would drop
        (8, 2, 4.0, {}, 8),  # never more than the group
        (32, 128, 1.0, {"min_capacity": 4}, 4),
        (100, 10, 1.1, {}, 11),  # 100 x 1.1 / 10 = 11.000000000000002 in floating point
    ],
)
def test_capacity(tokens, experts, factor, limits, slots):
    assert expert_capacity(tokens, experts, factor, **limits) == slots


@pytest.mark.parametrize(
    ("tokens", "experts", "slots", "choices", "dropped"),
    [
        # Two tokens, two experts, a slot each: half of the time both choose the same, one of two.
        (2, 2, 1, 1, 1 / 4),
        # Three tokens, two experts, one slot: 2 of 3 are dropped where all agree (1/4), else 1.
        (3, 2, 1, 1, (2 * 1 / 4 + 1 * 3 / 4) / 3),
        (3, 2, 2, 1, 1 / 4 / 3),
        (3, 2, 3, 1, 0),
        (5, 1, 3, 1, 2 / 5),
        # Two tokens with two of three experts each, a slot each. The second token picks the pair
        # of the first with 1/3, where both choices are dropped, else one of four.
        (2, 3, 1, 2, (2 * 1 / 3 + 1 * 2 / 3) / 4),
        (5, 2, 3, 2, 2 / 5),  # all pick both experts
    ],
)
def test_expected_drop_by_hand(tokens, experts, slots, choices, dropped):
    found = expected_drop(tokens, experts, slots, choices)
    assert found == pytest.approx(dropped, abs=1e-15)


@pytest.mark.parametrize(("tokens", "experts", "slots"), [(8192, 128, 80), (228, 128, 4)])
def test_expected_drop_is_that_of_tokens_which_choose_at_random(tokens, experts, slots):
    rng = np.random.default_rng(0)
    load = rng.multinomial(tokens, np.full(experts, 1 / experts), size=2000)  # [2000, E]
    dropped = np.maximum(load - slots, 0).sum(1) / tokens
    error = dropped.std() / 2000**0.5
    assert abs(expected_drop(tokens, experts, slots) - dropped.mean()) < 4 * error


def test_expected_drop_of_a_large_group_is_never_below_zero():
    assert 0 <= expected_drop(10**6, 8, 250_000) < 1e-12


@pytest.mark.parametrize(
    ("batch", "length", "group_size", "expected"),
    [
        (2048, 512, 8192, (128, 8192)),
        (2048, 114, 8192, (32, 7296)),  # 64 whole rows
        (4, 100, 1000, (1, 400)),
        (6, 100, 400, (2, 300)),  # 4 rows would fit, but do not divide 6
        (4, 512, 128, (16, 128)),  # parts of a row
    ],
)
def test_group_shape(batch, length, group_size, expected):
    assert group_shape(batch, length, group_size) == expected


def test_group_size_that_does_not_divide_a_row():
    with pytest.raises(UserError, match=r"group_size = 100 does not fit.*512 % 100 = 12"):
        group_shape(4, 512, 100)
    with pytest.raises(UserError, match=r"^DECODER_GROUP_SIZE = 9 .*set DECODER_GROUP_SIZE to a "):
        group_shape(4, 16, 9, name="DECODER_GROUP_SIZE")
