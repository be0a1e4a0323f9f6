"""No-Token-Left-Behind (App. B), against rounds over one token after the other."""

import numpy as np
import pytest

from tests.moe.cases import CASES, E, compare, in_order, inputs


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
    ("mesh", "factor", "capacity"), [((2, 2, 2), 1.25, 2), ((1, 8, 1), 0.5, 1)]
)
def test_the_layer_equals_the_one_hot_reference(mesh, factor, capacity):
    for case in CASES:
        x, valid, p = inputs(case)
        choices = in_order(x @ p.router, 4)
        expert = one_by_one(choices, capacity, valid)
        # Dropped tokens ask for an expert, which counts in the load, and take no slot.
        chosen = np.where(expert < E, expert, choices[:, 0])[:, None]
        slots = compare(
            mesh, case, capacity, chosen, (expert < E)[:, None], first=choices[:, 0],
            ntlb_rounds=4, capacity_factor=factor,
        )  # fmt: skip
        if case == "ties":
            assert slots.mean() == (1 if capacity == 2 else 0.5)
