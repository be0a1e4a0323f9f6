"""Several experts for each token (the MoE of Table 1): slots, gates, gradients, and statistics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.config import MeshConfig
from switch_jax.moe import SwitchWeights, assign_choices, dropless_ffn
from switch_jax.moe.choices import top_choices
from switch_jax.moe.random_streams import RouterKey, Stream, noise
from switch_jax.partitioning.mesh import make_mesh
from tests.moe import reference
from tests.moe.layers import switch

B, L, D, F, E = 8, 8, 6, 8, 8
KEY = jax.random.key(5)
MESHES = [(1, 1, 1), (8, 1, 1), (2, 4, 1), (1, 8, 1), (1, 4, 2), (2, 2, 2)]
# What makes the router's weights, and which tokens are real; feature 0 of each token is 1.
CASES = ("random", "ties", "all tokens to one expert", "empty experts", "padding")


def inputs(case):
    rng = np.random.default_rng(CASES.index(case))
    x = rng.normal(size=(B, L, D)).astype(np.float32)
    x[..., 0] = 1
    valid = np.ones((B, L), bool)
    router = rng.normal(size=(D, E)).astype(np.float32) / 2
    if case == "ties":
        router[:] = 0
    if case == "all tokens to one expert":
        router[0, 2] = 20
    if case == "empty experts":
        router[0, :5] = -40
    if case == "padding":
        valid = rng.random((B, L)) < 0.7
        valid[3] = False
    wi, wo = rng.normal(size=(E, D, F)) / D**0.5, rng.normal(size=(E, F, D)) / F**0.5
    return x, valid, SwitchWeights(router, (wi.astype(np.float32),), wo.astype(np.float32))


def in_order(logits, number):
    """[G, S, E] -> [G, K, S], the most probable first, the lowest index first in a tie."""
    return np.moveaxis(np.argsort(-logits, axis=-1, kind="stable")[..., :number], -1, 1)


@functools.cache
def layer(mesh, capacity_factor=1.25, **changes):
    """A compiled function of the inputs and weights of y: y, loss, statistics and gradients."""
    switch_layer = switch(E, L, capacity_factor, expert_capacity_multiple=1, **changes)

    def loss(x, p, valid, y_weights):
        y, s = switch_layer(x, valid, p, KEY)
        return jnp.sum(y * y_weights) + s.load_balance_loss + s.z_loss, (y, s)

    gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))

    def run(x, valid, p, y_weights):
        with jax.set_mesh(make_mesh(MeshConfig(*mesh))):
            (loss, (y, s)), (x_grad, p_grad) = jax.device_get(gradient(x, p, valid, y_weights))
        return y, loss, s, (x_grad, p_grad.router, *p_grad.wi, p_grad.wo)

    return run


def compare(mesh, case, capacity, chosen, wanted=None, first=None, **config):
    """The layer against the reference; returns the share of tokens without a slot.

    `first` are the choices that the load counts, [G, S]; by default the first ones of `chosen`.
    """
    first = chosen[:, 0] if first is None else first
    x, valid, p = inputs(case)
    y_weights = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    y, loss, statistics, gradients = layer(mesh, **config)(x, valid, p, y_weights)
    exact = jax.tree.map(lambda a: np.asarray(a, np.float64), (x, p, y_weights))
    expected, expected_gradients = reference.loss_and_gradients(
        exact[0], exact[1], capacity, valid, exact[2], chosen=chosen, wanted=wanted, first=first
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    for a, b in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())
    combine = reference.assign(exact[0] @ exact[1].router, capacity, valid, chosen, wanted)
    has_slot = (combine > 0).any((2, 3))
    np.testing.assert_array_equal(y[~has_slot], 0)
    np.testing.assert_allclose(statistics.dropped, 1 - has_slot[valid].mean(), atol=1e-6)
    if chosen.shape[1] > 1:
        several = (combine > 0).sum((2, 3))[valid] > 1
        np.testing.assert_allclose(statistics.several_experts, several.mean(), atol=1e-6)
    else:
        assert statistics.several_experts is None
    load = np.bincount(first[valid], minlength=E) / valid.sum()
    np.testing.assert_allclose(statistics.load, load, atol=1e-6)
    return 1 - has_slot[valid].mean()


@pytest.mark.parametrize("mesh", MESHES)
def test_two_experts_equal_the_one_hot_reference(mesh):
    for case in CASES:
        x, _, p = inputs(case)
        compare(mesh, case, 2, in_order(x @ p.router, 2), num_selected_experts=2)


@pytest.mark.parametrize(("number", "factor", "capacity"), [(2, 0.5, 1), (8, 8.0, 8)])
def test_capacity_1_and_as_many_choices_as_experts(number, factor, capacity):
    config = {"num_selected_experts": number, "capacity_factor": factor}
    dropped = {}
    for case in CASES:
        x, _, p = inputs(case)
        chosen = in_order(x @ p.router, number)
        dropped[case] = compare((2, 2, 2), case, capacity, chosen, **config)
    assert (max(dropped.values()) > 0) == (capacity == 1)


def test_first_choices_take_slots_before_second_ones():
    """By hand: expert 0 is full of first choices before the first token's second one comes."""
    #           first choice      1  0  0  2 (padding: 1)
    #           second choice     0  2  1  0 (padding: 0)
    logits = np.log(np.array([[[3, 4, 1], [4, 1, 3], [4, 3, 1], [3, 1, 4], [3, 4, 1]]], np.float32))
    valid = np.array([[True, True, True, True, False]])
    choices = top_choices(jnp.asarray(logits), 2)
    assert choices.tolist() == [[[1, 0, 0, 2, 1], [0, 2, 1, 0, 0]]]
    got = jax.jit(assign_choices, static_argnums=2)(choices, logits, 2, valid)
    # Numbers from 5 on are second choices; 10 is nobody.
    assert got.token_index.tolist() == [[[1, 2], [0, 7], [3, 6]]]
    assert got.position_in_expert.tolist() == [[[0, 0, 1, 0, 2], [2, 1, 1, 2, 2]]]
    np.testing.assert_allclose(
        got.gate, [[[4 / 7, 4 / 7, 4 / 7, 4 / 7, 0], [0, 3 / 7, 3 / 7, 0, 0]]], rtol=1e-6
    )
    assert got.load.tolist() == [[2, 1, 1]]


def test_second_choices_are_kept_at_random_by_their_gates():
    config = {"num_selected_experts": 3, "second_expert_policy": "random",
              "second_expert_threshold": 0.6, "capacity_factor": 2.0}  # fmt: skip
    bits = RouterKey(KEY, jnp.int32(0), 0, L).bits(Stream.SECOND_EXPERT, (B, L, 3))
    uniform = (np.moveaxis(np.asarray(noise(bits)), -1, 1) + 1) / 2
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


@pytest.mark.parametrize("mesh", [(1, 1, 1), (1, 4, 2)])
def test_decoding_gives_what_the_layer_gives_where_nothing_is_dropped(mesh):
    switch_layer = switch(E, L, float(E), num_selected_experts=2)
    x, valid, p = inputs("padding")
    with jax.set_mesh(make_mesh(MeshConfig(*mesh), jax.devices()[: int(np.prod(mesh))])):
        y, _ = jax.jit(switch_layer)(x, valid, p)
        cached = jax.jit(lambda *a: dropless_ffn(*a, jax.nn.relu, 2))(x, valid, p)
    np.testing.assert_allclose(cached, y, atol=1e-5)
    assert np.abs(y).max() > 0.1
