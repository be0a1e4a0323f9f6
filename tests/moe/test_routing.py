import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.errors import UserError
from switch_jax.moe import assign, capacity, group_shape, load_balance_loss, router_z_loss
from tests.moe import reference


def _random(shape=(3, 40, 5), seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape).astype(np.float32), rng.random(shape[:2]) < 0.8


def _all_to_one(shape=(2, 16, 4)):
    logits = np.zeros(shape, np.float32)
    logits[..., 2] = 5.0
    return logits, np.ones(shape[:2], bool)


CASES = {
    "random": (*_random(), 6),
    "random, ample capacity": (*_random(seed=1), 40),
    "capacity 1": (*_random(seed=2), 1),
    "all tokens to one expert": (*_all_to_one(), 4),
    "ties go to the lowest expert": (np.zeros((2, 12, 4), np.float32), np.ones((2, 12), bool), 5),
    "all padding": (_random(seed=3)[0], np.zeros((3, 40), bool), 4),
    "one expert": (*_random((2, 9, 1), seed=4), 3),
    "empty experts": (np.pad(_random((2, 20, 2), 5)[0], ((0, 0), (0, 0), (0, 6)),
                             constant_values=-9.0), np.ones((2, 20), bool), 7),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_assign_equals_the_one_hot_reference(case):
    logits, valid, slots = CASES[case]
    expected = reference.assign(logits, slots, valid)
    got = jax.jit(assign, static_argnums=1)(logits, slots, valid)
    groups, tokens, experts = logits.shape

    combine = np.zeros((groups, tokens, experts, slots + 1), np.float32)
    g, s = np.indices((groups, tokens))
    combine[g, s, got.expert, got.slot] = got.gate
    np.testing.assert_allclose(combine[..., :slots], expected, rtol=1e-6)

    token = np.full((groups, experts, slots), tokens)
    for index in np.argwhere(expected > 0):
        token[index[0], index[2], index[3]] = index[1]
    np.testing.assert_array_equal(got.token, token)
    kept = expected.sum((2, 3)) > 0
    np.testing.assert_array_equal(np.asarray(got.slot) == slots, ~kept)
    np.testing.assert_array_equal(np.asarray(got.gate)[~kept], 0.0)
    np.testing.assert_array_equal(got.expert, logits.argmax(-1))


def test_assign_by_hand():
    #                  expert:  1    0    1    1 (dropped)  0 (padding)
    logits = jnp.log(jnp.array([[[1, 3], [3, 1], [1, 4], [1, 9], [7, 1]]], jnp.float32))
    valid = jnp.array([[True, True, True, True, False]])
    got = assign(logits, 2, valid)
    np.testing.assert_array_equal(got.expert, [[1, 0, 1, 1, 0]])
    np.testing.assert_array_equal(got.slot, [[0, 0, 1, 2, 2]])
    np.testing.assert_array_equal(got.token, [[[1, 5], [0, 2]]])
    np.testing.assert_allclose(got.gate, [[0.75, 0.75, 0.8, 0, 0]], rtol=1e-6)
    assert [a.dtype for a in got] == [jnp.int32, jnp.float32, jnp.int32, jnp.int32]


def test_gradient_of_the_gate_is_that_of_the_chosen_probability_in_a_tie():
    def gate(logits):
        return assign(logits, 1).gate.sum()

    # d softmax_0 / d logits at (1/2, 1/2): +1/4 and -1/4.
    np.testing.assert_allclose(jax.grad(gate)(jnp.zeros((1, 1, 2))), [[[0.25, -0.25]]], rtol=1e-6)


def test_load_balance_loss_by_hand():
    probs = jnp.array([[[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.5, 0.5]]])
    expert = jnp.array([[0, 0, 1, 0]])
    valid = jnp.array([[True, True, True, False]])
    # f = (2/3, 1/3), P = (1.7/3, 1.3/3): 2 * (2/3 * 1.7/3 + 1/3 * 1.3/3)
    expected = 2 * (2 / 3 * 1.7 / 3 + 1 / 3 * 1.3 / 3)
    np.testing.assert_allclose(load_balance_loss(probs, expert, valid), expected, rtol=1e-6)


@pytest.mark.parametrize("experts", [2, 8, 128])
def test_load_balance_loss_is_1_at_balance_and_e_when_one_expert_has_all(experts):
    tokens = 2 * experts
    even = jnp.full((3, tokens, experts), 1 / experts)
    turns = jnp.tile(jnp.arange(tokens) % experts, (3, 1))
    np.testing.assert_allclose(load_balance_loss(even, turns), 1.0, rtol=1e-5)
    one = jax.nn.one_hot(jnp.zeros((3, tokens), int), experts)
    np.testing.assert_allclose(
        load_balance_loss(one, jnp.zeros((3, tokens), int)), experts, rtol=1e-5
    )


def test_losses_of_groups_are_averaged_by_their_real_tokens_and_padding_counts_nowhere():
    logits, valid = _random((4, 16, 6), seed=7)
    valid[2] = False
    probs, expert = jax.nn.softmax(logits), jnp.argmax(logits, -1)
    for whole, part in (
        (load_balance_loss(probs, expert, valid),
         lambda g: load_balance_loss(probs[g:g + 1], expert[g:g + 1], valid[g:g + 1])),
        (router_z_loss(logits, valid), lambda g: router_z_loss(logits[g:g + 1], valid[g:g + 1])),
    ):  # fmt: skip
        parts = [part(g) * valid[g].sum() for g in range(4)]
        np.testing.assert_allclose(whole, sum(parts) / valid.sum(), rtol=1e-6)
    changed = np.where(valid[..., None], logits, 100.0)
    np.testing.assert_allclose(router_z_loss(changed, valid), router_z_loss(logits, valid))


def test_router_z_loss_by_hand():
    logits = jnp.log(jnp.array([[[1.0, 2.0], [3.0, 5.0], [50.0, 60.0]]]))
    valid = jnp.array([[True, True, False]])
    expected = (math.log(3) ** 2 + math.log(8) ** 2) / 2
    np.testing.assert_allclose(router_z_loss(logits, valid), expected, rtol=1e-6)


def test_losses_are_0_without_a_real_token():
    logits, _ = _random()
    nothing = np.zeros(logits.shape[:2], bool)
    probs = jax.nn.softmax(logits)
    assert load_balance_loss(probs, logits.argmax(-1), nothing) == 0
    assert router_z_loss(logits, nothing) == 0


def test_load_balance_gradient_is_alpha_free_e_f_over_tokens():
    probs = jnp.array([[[0.7, 0.3], [0.6, 0.4]]])
    # Both tokens go to expert 0: f = (1, 0), so d loss / d p_0 = 2 * 1 / 2, d loss / d p_1 = 0.
    gradient = jax.grad(load_balance_loss)(probs, jnp.array([[0, 0]]))
    np.testing.assert_allclose(gradient, [[[1, 0], [1, 0]]], rtol=1e-6)


@pytest.mark.parametrize(
    ("tokens", "experts", "factor", "least", "slots"),
    [
        (8192, 128, 1.25, 1, 80),
        (100, 8, 1.25, 1, 16),  # 15.6
        (8, 8, 1.0, 1, 1),
        (60, 8, 1.0, 1, 8),  # 7.5: rounded down, even routing would drop
        (8, 2, 4.0, 1, 8),  # never more than the group
        (32, 128, 1.0, 4, 4),  # at least min_capacity
        (10, 1, 1.1, 1, 10),
        (100, 10, 1.1, 1, 11),  # 100 x 1.1 / 10 = 11.000000000000002 in floating point
    ],
)
def test_capacity(tokens, experts, factor, least, slots):
    assert capacity(tokens, experts, factor, min_capacity=least) == slots


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
    with pytest.raises(UserError, match=r"group size 100 does not fit.*512 % 100 = 12"):
        group_shape(4, 512, 100)
