"""Experts that choose tokens (Zhou et al. 2022), against one expert after the other."""

import math

import jax
import numpy as np
import pytest

from switch_jax.moe import Distribution, choose_tokens, make_router, router_logits
from tests.moe.cases import CASES, E, compare, inputs
from tests.moe.layers import config_of, tokens


def probabilities(x, p):
    """[G, S, E]: the router's own. Where one expert has them all, their last digits decide."""
    return np.asarray(Distribution.of(router_logits(x, p.router)).probs)


def one_by_one(probs, capacity, valid):
    """[G, S, E] -> combine [G, S, E, C]: each expert's most probable tokens, earlier ones first.

    Of C slots for all tokens, those for the real ones are filled.
    """
    combine = np.zeros((*probs.shape, capacity))
    for g in range(len(probs)):
        for e in range(probs.shape[-1]):
            real = [s for s in range(probs.shape[1]) if valid[g, s]]
            number = math.ceil(len(real) * capacity / probs.shape[1])
            taken = sorted(real, key=lambda s: (-probs[g, s, e], s))[:number]
            for slot, s in enumerate(taken):
                combine[g, s, e, slot] = probs[g, s, e]
    return combine


@pytest.mark.parametrize(
    ("mesh", "factor", "capacity"),
    [((1, 8, 1), 1.25, 2), ((2, 2, 2), 0.5, 1), ((2, 2, 2), 100.0, 8)],
)
def test_the_layer_equals_the_one_hot_reference(mesh, factor, capacity):
    slots = {}
    for case in CASES:
        x, valid, p = inputs(case)
        # The load is even, so that its loss is 1 and has no gradient.
        load = np.repeat(valid.sum(1, keepdims=True) / E, E, axis=1)
        slots[case] = compare(
            mesh, case, capacity, combine=one_by_one(probabilities(x, p), capacity, valid),
            load=load, capacity_factor=factor, encoder_router_type="experts_choose",
        )  # fmt: skip
    # All experts take the first tokens where all are as probable.
    assert (slots["ties"].max(), slots["ties"].min()) == (8, 8 if capacity == 8 else 0)
    assert capacity != 2 or (slots["random"].max() > 2 and slots["random"].min() == 0)


def test_tokens_times_slots_may_be_above_an_int32():
    size, capacity = 2**17, 2**15
    distribution = Distribution.of(np.zeros((1, size, 2), "f"))
    choose = jax.jit(choose_tokens, static_argnums=1)
    chosen = choose(distribution, capacity, np.ones((1, size), bool))
    assert chosen.token_index[0, 1, -1] == capacity - 1
    assert chosen.num_slots.sum() == 2 * capacity


def test_the_experts_of_a_token_by_hand():
    probs = np.array([[0.6, 0.3, 0.1], [0.5, 0.1, 0.4], [0.2, 0.7, 0.1]], np.float32)

    def choose(capacity):
        """The experts of each token, and their gates."""
        config = config_of(
            3, encoder_router_type="experts_choose", train_expert_capacity_factor=float(capacity)
        )
        router = make_router(config, config.stacks[0])
        of_tokens = tokens(np.ones((1, 3)))
        choose = jax.jit(
            lambda logits: router.choose(Distribution.of(logits), of_tokens, None, None)
        )
        choices, gates = choose(np.log(probs)[None])
        return choices[0].T.tolist(), gates[0].T

    experts, gates = choose(2)
    # Expert 0 takes tokens 0 and 1, expert 1 tokens 2 and 0, expert 2 tokens 1 and 0.
    assert experts == [[0, 1, 2], [0, 2, 3], [1, 3, 3]]
    np.testing.assert_allclose(gates, [[0.6, 0.3, 0.1], [0.5, 0.4, 0], [0.7, 0, 0]], rtol=1e-6)
    assert choose(1)[0] == [[0, 3, 3], [2, 3, 3], [1, 3, 3]]
