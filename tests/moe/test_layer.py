"""The layer as a whole: on every mesh, in groups of any size, and in chunks of slots."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.config import MeshConfig
from switch_jax.moe import SwitchWeights, layer
from switch_jax.partitioning.mesh import make_mesh
from tests.moe.layers import switch

# Rows of 128 numbers are exchanged in a way of their own, where they are not eight.
B, L, D, F, E = 8, 8, 128, 16, 8


def _inputs(experts=E):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(B, L, D)).astype(np.float32)
    valid = rng.random((B, L)) < 0.8
    router, wi = rng.normal(size=(D, E)) / D**0.5, rng.normal(size=(E, D, F)) / D**0.5
    wo = rng.normal(size=(E, F, D)) / F**0.5
    router, wi, wo = (w.astype(np.float32) for w in (router[:, :experts], wi, wo))
    return x, valid, SwitchWeights(router, (wi[:experts],), wo[:experts])


def _value_and_gradients(mesh, experts=E, length=L, group_size=L, **changes):
    """On the mesh, with noise, by the tokens and all weights; rows have this length."""
    x, valid, p = _inputs(experts)
    x, valid = x.reshape(-1, length, D), valid.reshape(-1, length)
    switch_layer = switch(experts, group_size, 1.25, **{"jitter_noise": 0.1, **changes})
    y_weights = np.random.default_rng(1).normal(size=(B, L, D)).reshape(x.shape).astype(np.float32)

    def loss(x, p):
        y, s = switch_layer(x, valid, p, jax.random.key(0))
        return jnp.mean((y - y_weights) ** 2) + s.load_balance_loss + s.z_loss

    with jax.set_mesh(make_mesh(MeshConfig(*mesh))):
        return jax.device_get(jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(x, p))


@functools.cache
def _on_one_device(**changes):
    return _value_and_gradients((1, 1, 1), **changes)


def _assert_same(got, expected):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b.reshape(a.shape), rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize(
    ("mesh", "changes"),
    [
        ((1, 8, 1), {}),
        ((2, 4, 1), {"experts": 2}),  # fewer experts than devices
        ((2, 4, 1), {"group_size": L // 2, "router_policy": "sample"}),
        ((2, 2, 2), {"group_size": 2 * L, "router_policy": "sample"}),
        ((1, 2, 4), {"router_policy": "input_dropout", "jitter_noise": 0.0}),
    ],
)
def test_gradients_and_noise_are_the_same_on_every_mesh(mesh, changes):
    changes = {"expert_dropout_rate": 0.3, **changes}
    _assert_same(_value_and_gradients(mesh, **changes), _on_one_device(**changes))


@pytest.mark.parametrize("size", [L // 2, 2 * L])
def test_a_group_is_a_part_of_a_row_or_several_rows(size):
    changes = {"expert_dropout_rate": 0.3, "group_size": size, "router_policy": "sample"}
    groups_as_rows = _value_and_gradients((1, 1, 1), length=size, **changes)
    _assert_same(_on_one_device(**changes), groups_as_rows)


@pytest.mark.parametrize(
    ("mesh", "changes", "exchanged"),
    # Into how many parts the experts are split, and how many slots an expert has on a device.
    [
        ((2, 4, 1), {"num_selected_experts": 2}, (4, 2)),
        ((1, 2, 4), {"encoder_router_type": "experts_choose"}, (2, 8)),
        ((1, 4, 2), {"experts": 2}, (2, 10)),
    ],
)
def test_two_chunks_of_slots_give_what_one_gives(mesh, changes, exchanged, monkeypatch):
    expected, exchanges = _on_one_device(**changes), []

    def two_chunks(expert_shards, rows):
        exchanges.append((expert_shards, rows))
        return 2

    monkeypatch.setattr(layer, "num_chunks", two_chunks)
    _assert_same(_value_and_gradients(mesh, **changes), expected)
    assert set(exchanges) == {exchanged}


def test_expert_dropout_zeroes_the_rate_and_keeps_the_mean():
    x = np.ones((B, L, D), np.float32)
    wi = np.full((1, D, 512), 1 / D, np.float32)
    wo = np.full((1, 512, D), 1 / 512, np.float32)
    p = SwitchWeights(np.zeros((D, 1), np.float32), (wi,), wo)
    layer = jax.jit(switch(1, L, 1.0, expert_dropout_rate=0.4))
    y, _ = layer(x, np.ones((B, L), bool), p, jax.random.key(0))
    # Each output is the mean of 512 hidden units, each 0 or 1 / 0.6.
    kept = np.asarray(y)[..., 0] * 0.6
    np.testing.assert_allclose(kept.mean(), 0.6, atol=0.01)
    np.testing.assert_allclose(kept.std(), (0.4 * 0.6 / 512) ** 0.5, rtol=0.3)


def test_the_router_is_float32_in_a_bfloat16_model():
    x, valid, p = _inputs()
    x = jnp.asarray(x, jnp.bfloat16)
    y, stats = jax.jit(switch(E, L, 1.25))(x, valid, p)
    assert y.dtype == jnp.bfloat16
    logits = np.asarray(x, np.float32) @ p.router
    z = np.log(np.exp(logits).sum(-1))[valid]
    np.testing.assert_allclose(stats.z_loss, (z**2).mean(), rtol=1e-5)  # bfloat16 errs by 1e-3
