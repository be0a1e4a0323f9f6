"""Experts that choose tokens (Zhou et al. 2022), against one expert after the other."""

import math

import jax
import numpy as np
import pytest

from switch_jax.moe import Distribution, choose_tokens, make_router, router_logits
from tests.moe import reference
from tests.moe.cases import CASES, E, inputs, layer
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


def compare(mesh, case, capacity, factor):
    """The layer against the reference; returns the most experts of a token, and the fewest."""
    x, valid, p = inputs(case)
    y_weights = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    run = layer(mesh, factor, encoder_router_type="experts_choose")
    y, loss, statistics, gradients, _ = run(x, valid, p, y_weights)
    exact = jax.tree.map(lambda a: np.asarray(a, np.float64), (x, p, y_weights))
    combine = one_by_one(probabilities(x, p), capacity, valid)
    probs = reference.softmax(exact[0] @ exact[1].router)
    combine = np.where(combine > 0, probs[..., None], 0)
    load = np.repeat(valid.sum(1, keepdims=True) / E, E, axis=1)
    expected, expected_gradients = reference.loss_and_gradients(
        exact[0], exact[1], capacity, valid, exact[2], combine=combine, load=load
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-5)
    for a, b in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())
    experts_of_token = (combine > 0).sum((2, 3))[valid]
    np.testing.assert_allclose(statistics.dropped, (experts_of_token == 0).mean(), atol=1e-6)
    several = (experts_of_token > 1).mean()
    np.testing.assert_allclose(statistics.several_experts, several, atol=1e-6)
    np.testing.assert_allclose(statistics.load, 1 / E, atol=1e-6)
    np.testing.assert_allclose(statistics.load_balance_loss, 1, rtol=1e-6)
    np.testing.assert_array_equal(y[~valid], 0)
    return experts_of_token.max(), experts_of_token.min()


@pytest.mark.parametrize("mesh", [(1, 1, 1), (1, 8, 1), (2, 2, 2)])
def test_the_layer_equals_the_one_hot_reference(mesh):
    experts = {case: compare(mesh, case, 2, 1.25) for case in CASES}
    assert experts["random"][0] > 2
    assert experts["random"][1] == 0
    assert experts["ties"] == (8, 0)  # all experts take the first two tokens


@pytest.mark.parametrize(("factor", "capacity"), [(0.5, 1), (100.0, 8)])
def test_one_slot_and_as_many_as_tokens(factor, capacity):
    for case in CASES:
        most, fewest = compare((2, 2, 2), case, capacity, factor)
        assert (most, fewest) == (8, 8) or capacity == 1


def test_tokens_times_slots_may_be_above_an_int32():
    size, capacity = 2**17, 2**15
    distribution = Distribution.of(np.zeros((1, size, 2), "f"))
    chosen = choose_tokens(distribution, capacity, np.ones((1, size), bool))
    assert chosen.token_index[0, 1, -1] == capacity - 1
    assert chosen.num_slots.sum() == 2 * capacity


def test_the_experts_of_a_token_by_hand():
    probs = np.array([[0.6, 0.3, 0.1], [0.5, 0.1, 0.4], [0.2, 0.7, 0.1]], np.float32)

    def choose(capacity):
        """The experts of each token, and their gates."""
        config = config_of(
            3, encoder_router_type="experts_choose", train_expert_capacity_factor=float(capacity)
        )
        distribution = Distribution.of(np.log(probs)[None])
        router = make_router(config, "encoder", np.zeros((1, 3)))
        choices, gates = router.choose(distribution, tokens(np.ones((1, 3))), None)
        return choices[0].T.tolist(), gates[0].T

    experts, gates = choose(2)
    # Expert 0 takes tokens 0 and 1, expert 1 tokens 2 and 0, expert 2 tokens 1 and 0.
    assert experts == [[0, 1, 2], [0, 2, 3], [1, 3, 3]]
    np.testing.assert_allclose(gates, [[0.6, 0.3, 0.1], [0.5, 0.4, 0], [0.7, 0, 0]], rtol=1e-6)
    assert choose(1)[0] == [[0, 3, 3], [2, 3, 3], [1, 3, 3]]
