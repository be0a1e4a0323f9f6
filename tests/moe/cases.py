"""Layers with and without a rule of their own, on several meshes, against the one-hot reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from switch_jax.config import MeshConfig
from switch_jax.moe import SwitchWeights
from switch_jax.moe.random_streams import RouterKey, noise
from switch_jax.partitioning.mesh import make_mesh
from tests.moe import reference
from tests.moe.layers import switch

B, L, D, F, E = 8, 8, 6, 8, 8
KEY = jax.random.key(5)
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
        return y, loss, s, (x_grad, p_grad.router, *p_grad.wi, p_grad.wo), p_grad.router_bias

    return run


def compare(
    mesh, case, capacity, chosen=None, wanted=None, first=None, combine=None, load=None,
    factor=1.0, bias=None, **config,
):  # fmt: skip
    """The layer against the reference; returns in how many experts each real token has a slot.

    `chosen` to `load` are as for `reference.loss_and_gradients`. `factor` is the noise of the
    router's input. With a `bias` the load-balancing loss has no gradient but that of the bias.
    """
    x, valid, p = inputs(case)
    y_weights = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    run, biased = layer(mesh, **config), p._replace(router_bias=bias)
    y, loss, statistics, gradients, of_bias = run(x, valid, biased, y_weights)
    exact = jax.tree.map(lambda a: np.asarray(a, np.float64), (x, p, y_weights))
    logits = (exact[0] * factor) @ exact[1].router
    if combine is None:
        first = chosen[:, 0] if first is None else first
        load = (np.eye(E)[first] * valid[..., None]).sum(1)
        combine = reference.assign(logits, capacity, valid, chosen, wanted)
    expected, expected_gradients = reference.loss_and_gradients(
        exact[0],
        exact[1],
        capacity,
        valid,
        exact[2],
        chosen=chosen,
        factor=factor,
        balance=1.0 if bias is None else 0.0,
        combine=combine,
        load=load,
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-5)
    for a, b in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())
    slots = (combine > 0).sum((2, 3))
    np.testing.assert_array_equal(y[slots == 0], 0)
    np.testing.assert_allclose(statistics.dropped, (slots[valid] == 0).mean(), atol=1e-6)
    if chosen is None or chosen.shape[1] > 1:
        several = (slots[valid] > 1).mean()
        np.testing.assert_allclose(statistics.several_experts, several, atol=1e-6)
    else:
        assert statistics.several_experts is None
    np.testing.assert_allclose(statistics.load, load.sum(0) / valid.sum(), atol=1e-6)
    probs = reference.softmax(logits)
    entropy = -(probs * np.log(probs)).sum(-1)[valid].mean()
    np.testing.assert_allclose(statistics.entropy, entropy, rtol=1e-4, atol=1e-5)
    # By device; every token of the batch is on one of them.
    largest = statistics.router_logit_max
    assert largest.shape == (mesh[0] * mesh[1],)
    np.testing.assert_allclose(largest.max(), logits[valid].max(), rtol=1e-5, atol=1e-6)
    if bias is not None:  # of all choices, and not of the first ones alone
        load = np.bincount(np.moveaxis(chosen, 1, -1)[valid].ravel(), minlength=E)
        np.testing.assert_allclose(of_bias, load / load.sum() - 1 / E, atol=1e-6)
    return slots[valid]


def drawn(stream, shape):
    """The layer's noise of [B, L, D] or [B, L, k], uniform in [-1, 1)."""
    return np.asarray(noise(RouterKey(KEY, jnp.int32(0), 0, L).bits(stream, shape)))
