"""Batch-prioritised routing (Riquelme et al. 2021), against one token after the other."""

import numpy as np
import pytest

from tests.moe.cases import CASES, E, compare, in_order, inputs
from tests.moe.test_experts_choose import probabilities
from tests.moe.test_no_token_left_behind import one_by_one


def by_gate(probs, first):
    """[G, S, E] and first choices [G, S] -> [G, S], tokens of the highest gate first."""
    gate = np.take_along_axis(probs, first[..., None], -1)[..., 0]
    return np.argsort(-gate, axis=1, kind="stable")


def kept(chosen, order, capacity, valid):
    """[G, K, S] choices, tokens in order [G, S] -> [G, K, S], those that get a slot."""
    has_slot = np.zeros(chosen.shape, bool)
    for g in range(len(chosen)):
        used = [0] * E
        for k in range(chosen.shape[1]):
            for s in order[g]:
                e = chosen[g, k, s]
                has_slot[g, k, s] = valid[g, s] and used[e] < capacity
                used[e] += has_slot[g, k, s]
    return has_slot


@pytest.mark.parametrize(("mesh", "number"), [((2, 2, 2), 1), ((1, 4, 2), 2)])
def test_the_layer_equals_the_one_hot_reference(mesh, number):
    for case in CASES:
        x, valid, p = inputs(case)
        chosen = in_order(x @ p.router, number)
        order = by_gate(probabilities(x, p), chosen[:, 0])
        has_slot = kept(chosen, order, 2, valid)
        if case == "random":  # others would be kept in token order
            tokens = np.broadcast_to(np.arange(order.shape[1]), order.shape)
            assert (has_slot != kept(chosen, tokens, 2, valid)).any()
        compare(
            mesh, case, 2, chosen, has_slot, num_selected_experts=number,
            encoder_router_type="batch_prioritized",
        )  # fmt: skip


def test_with_no_token_left_behind_each_round_is_by_gate():
    x, valid, p = inputs("padding")
    choices = in_order(x @ p.router, 4)
    order = by_gate(probabilities(x, p), choices[:, 0])
    back = np.argsort(order, axis=1)
    served = np.take_along_axis(choices, order[:, None], 2)
    expert = one_by_one(served, 2, np.take_along_axis(valid, order, 1))
    expert = np.take_along_axis(expert, back, 1)
    assert (expert != one_by_one(choices, 2, valid)).any()
    chosen = np.where(expert < E, expert, choices[:, 0])[:, None]
    compare(
        (2, 2, 2), "padding", 2, chosen, (expert < E)[:, None], first=choices[:, 0], ntlb_rounds=4,
        encoder_router_type="batch_prioritized",
    )  # fmt: skip
