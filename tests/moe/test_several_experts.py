"""Several experts for each token (the MoE of Table 1): slots, gates, gradients, and statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.moe import Distribution, Tokens, make_router
from switch_jax.moe.random_streams import Stream
from switch_jax.moe.tokens_choose import top_choices
from tests.moe import reference
from tests.moe.cases import CASES, B, L, compare, drawn, in_order, inputs
from tests.moe.layers import assign
from tests.trainer.helpers import tiny_model


@pytest.mark.parametrize(
    ("mesh", "number", "factor", "capacity"),
    [
        ((2, 4, 1), 2, 1.25, 2),
        ((2, 2, 2), 2, 0.5, 1),
        ((2, 2, 2), 8, 8.0, 8),  # each token chooses all eight experts
    ],
)
def test_the_layer_equals_the_one_hot_reference(mesh, number, factor, capacity):
    config = {"num_selected_experts": number, "capacity_factor": factor}
    for case in CASES:
        x, _, p = inputs(case)
        slots = compare(mesh, case, capacity, in_order(x @ p.router, number), **config)
        assert case != "random" or (slots.min() == 0) == (capacity < 8)


def test_first_choices_take_slots_before_second_ones():
    """By hand: expert 0 is full of first choices before the first token's second one comes."""
    #           first choice      1  0  0  2 (padding: 1)
    #           second choice     0  2  1  0 (padding: 0)
    logits = np.log(np.array([[[3, 4, 1], [4, 1, 3], [4, 3, 1], [3, 1, 4], [3, 4, 1]]], np.float32))
    valid = np.array([[True, True, True, True, False]])
    choices = top_choices(jnp.asarray(logits), 2)
    assert choices.tolist() == [[[1, 0, 0, 2, 1], [0, 2, 1, 0, 0]]]
    got = jax.jit(assign, static_argnums=2)(choices, logits, 2, valid)
    # Numbers from 5 on are second choices; 10 is nobody.
    assert got.token_index.tolist() == [[[1, 2], [0, 7], [3, 6]]]
    assert got.position_in_expert.tolist() == [[[0, 0, 1, 0, 2], [2, 1, 1, 2, 2]]]
    np.testing.assert_allclose(
        got.gate, [[[4 / 7, 4 / 7, 4 / 7, 4 / 7, 0], [0, 3 / 7, 3 / 7, 0, 0]]], rtol=1e-6
    )
    assert got.load.tolist() == [[2, 1, 1]]


def test_gates_that_are_not_normalised_are_probabilities():
    """Of a token with the probabilities 1/8, 4/8 and 3/8, and padding with others."""
    logits = jnp.log(jnp.array([[[1, 4, 3], [2, 2, 4]]], jnp.float32))
    segments = jnp.array([[1, 0]])
    for normalize, expected in ((False, [4 / 8, 3 / 8]), (True, [4 / 7, 3 / 7])):
        config = tiny_model(num_experts=3, num_selected_experts=2, normalize_gates=normalize)
        policy, tokens = make_router(config, config.stacks[0]), Tokens(segments, segments)
        assigned = policy.assign(logits, tokens, None, capacity=2, key=None)
        np.testing.assert_allclose(assigned.gate[0, :, 0], expected, rtol=1e-6)
        choices, gates = policy.choose(Distribution.of(logits), tokens, None, None)
        assert choices[0, :, 0].tolist() == [1, 2]
        np.testing.assert_allclose(gates[0, :, 0], expected, rtol=1e-6)


def test_second_choices_are_kept_at_random_by_their_gates():
    config = {"num_selected_experts": 3, "second_expert_policy": "random",
              "second_expert_threshold": 0.6, "capacity_factor": 2.0}  # fmt: skip
    uniform = (np.moveaxis(drawn(Stream.SECOND_EXPERT, (B, L, 3)), -1, 1) + 1) / 2
    for case in CASES:
        x, _, p = inputs(case)
        logits = x @ p.router
        chosen = in_order(logits, 3)
        gates = np.take_along_axis(
            reference.gates_of(reference.softmax(logits), chosen), np.moveaxis(chosen, 1, -1), -1
        )
        wanted = uniform < np.moveaxis(gates, -1, 1) / 0.6
        wanted[:, 0] = True
        assert case == "all tokens to one expert" or 0.1 < wanted[:, 1:].mean() < 0.9
        compare((2, 2, 2), case, 2, chosen, wanted, **config)
