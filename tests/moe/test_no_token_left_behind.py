"""No-Token-Left-Behind (App. B), against rounds over one token after the other."""

import jax
import numpy as np
import pytest

from switch_jax.moe import assign
from switch_jax.moe.choices import top_choices
from switch_jax.moe.no_token_left_behind import assign_in_rounds
from tests.moe.test_several_experts import CASES, B, E, L, compare, in_order, inputs


def one_by_one(choices, capacity, valid):
    """[G, R, S] -> [G, S]: the expert of each token; E for a token without one."""
    groups, rounds, tokens = choices.shape
    expert = np.full((groups, tokens), E)
    for g in range(groups):
        used = [0] * E
        for r in range(rounds):
            for s in range(tokens):
                e = choices[g, r, s]
                if valid[g, s] and expert[g, s] == E and used[e] < capacity:
                    expert[g, s] = e
                    used[e] += 1
    return expert


@pytest.mark.parametrize(
    ("mesh", "factor", "capacity"),
    [((1, 1, 1), 1.25, 2), ((2, 2, 2), 1.25, 2), ((1, 8, 1), 0.5, 1)],
)
def test_the_layer_equals_the_one_hot_reference(mesh, factor, capacity):
    dropped = {}
    for case in CASES:
        x, valid, p = inputs(case)
        choices = in_order(x @ p.router, 4)
        expert = one_by_one(choices, capacity, valid)
        # Dropped tokens ask for an expert, which counts in the load, and take no slot.
        chosen = np.where(expert < E, expert, choices[:, 0])[:, None]
        dropped[case] = compare(
            mesh, case, capacity, chosen, (expert < E)[:, None], first=choices[:, 0],
            ntlb_rounds=4, capacity_factor=factor,
        )  # fmt: skip
    assert dropped["random"] < 0.1 or capacity == 1
    assert dropped["ties"] == (0 if capacity == 2 else 0.5)


def test_the_first_round_is_top_1_routing():
    x, valid, p = inputs("padding")
    logits = x @ p.router
    rounds = jax.jit(
        lambda n: assign_in_rounds(top_choices(logits, n), logits, 2, valid), static_argnums=0
    )
    one, four, expected = rounds(1), rounds(4), jax.jit(assign, static_argnums=1)(logits, 2, valid)
    for name in ("gate", "position_in_expert"):
        np.testing.assert_allclose(getattr(one, name), getattr(expected, name), rtol=1e-5)
    for name in ("token_index", "load"):
        np.testing.assert_array_equal(getattr(one, name), getattr(expected, name))
    # Whoever has a slot after the first round keeps its expert.
    kept = np.asarray(expected.position_in_expert) < 2
    assert 0 < (~kept[:, 0] & valid).sum() < B * L
    np.testing.assert_array_equal(
        np.asarray(four.expert_index)[kept], np.asarray(expected.expert_index)[kept]
    )
    assert (np.asarray(four.position_in_expert) < 2).sum() > kept.sum()
