import numpy as np
import pytest

from switch_jax.moe import expected_drop, expert_capacity, group_shape
from switch_jax.utils.errors import UserError


@pytest.mark.parametrize(
    ("tokens", "experts", "factor", "least", "slots"),
    [
        (8192, 128, 1.25, 1, 80),
        (100, 8, 1.25, 1, 16),  # 15.6
        (1824, 128, 1.0, 1, 16),  # 14.25, and 15 is nearly a multiple of 8
        (1824, 128, 1.25, 1, 18),  # 17.8; 24 would be a third more
        (480, 8, 1.0, 1, 64),
        (14, 1, 1.0, 1, 14),
        (8, 8, 1.0, 1, 1),
        (60, 8, 1.0, 1, 8),  # 7.5: rounded down, even routing would drop
        (8, 2, 4.0, 1, 8),  # never more than the group
        (32, 128, 1.0, 4, 4),  # at least min_capacity
        (10, 1, 1.1, 1, 10),
        (100, 10, 1.1, 1, 11),  # 100 x 1.1 / 10 = 11.000000000000002 in floating point
    ],
)
def test_capacity(tokens, experts, factor, least, slots):
    assert expert_capacity(tokens, experts, factor, min_capacity=least) == slots


@pytest.mark.parametrize(
    ("tokens", "experts", "factor", "multiple", "slots"),
    [
        (1824, 128, 1.0, 1, 15),  # 14.25, rounded once: 1.05 in place of 1.12 at 16
        (8192, 128, 1.0, 1, 64),
        (100, 8, 1.25, 1, 16),  # 15.6
        (1824, 128, 1.25, 9, 18),
        (1824, 128, 1.0, 5, 15),
        (8, 2, 4.0, 1, 8),  # never more than the group
    ],
)
def test_capacity_is_rounded_to_the_multiple_that_is_asked_for(
    tokens, experts, factor, multiple, slots
):
    assert expert_capacity(tokens, experts, factor, multiple=multiple) == slots


@pytest.mark.parametrize(
    ("tokens", "experts", "slots", "dropped"),
    [
        # Two tokens, two experts, a slot each: half of the time both choose the same, one of two.
        (2, 2, 1, 1 / 4),
        # Three tokens, two experts, one slot: 2 of 3 are dropped where all agree (1/4), else 1.
        (3, 2, 1, (2 * 1 / 4 + 1 * 3 / 4) / 3),
        (3, 2, 2, 1 / 4 / 3),
        (3, 2, 3, 0),
        (5, 1, 3, 2 / 5),
        (5, 1, 5, 0),
    ],
)
def test_expected_drop_by_hand(tokens, experts, slots, dropped):
    assert expected_drop(tokens, experts, slots) == pytest.approx(dropped, abs=1e-15)


@pytest.mark.parametrize(
    ("tokens", "experts", "slots"), [(8192, 128, 80), (1824, 128, 18), (228, 128, 4), (512, 8, 80)]
)
def test_expected_drop_is_that_of_tokens_which_choose_at_random(tokens, experts, slots):
    rng = np.random.default_rng(0)
    load = rng.multinomial(tokens, np.full(experts, 1 / experts), size=2000)  # [2000, E]
    dropped = np.maximum(load - slots, 0).sum(1) / tokens
    error = dropped.std() / 2000**0.5
    assert abs(expected_drop(tokens, experts, slots) - dropped.mean()) < 4 * error


def test_expected_drop_of_two_choices_by_hand():
    """Two tokens, three experts, a slot each: two of three experts each, so one or two in common.

    The second token picks the first one's pair with 1/3 and drops both choices, else one of four.
    """
    expected = (2 * 1 / 3 + 1 * 2 / 3) / 4
    assert expected_drop(2, 3, 1, choices=2) == pytest.approx(expected, abs=1e-15)
    assert expected_drop(5, 2, 3, choices=2) == pytest.approx(2 / 5, abs=1e-15)  # all pick both


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
