import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.config import MeshConfig
from switch_jax.config.model import ROUTER_POLICIES
from switch_jax.moe import expert_capacity, layer
from switch_jax.partitioning.mesh import make_mesh
from tests.moe import reference
from tests.moe.layers import Weights, switch

B, L, D, F, E = 8, 8, 12, 16, 8
MESHES = [(1, 1, 1), (2, 4, 1), (1, 8, 1), (1, 4, 2), (2, 2, 2)]


def _inputs(dtype=np.float32):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(B, L, D)).astype(dtype)
    valid = rng.random((B, L)) < 0.8
    parameters = Weights(
        router=rng.normal(size=(D, E)).astype(np.float32),
        wi=(rng.normal(size=(E, D, F)).astype(np.float32) / D**0.5,),
        wo=rng.normal(size=(E, F, D)).astype(np.float32) / F**0.5,
    )
    return x, valid, parameters


def _switch(experts=E, group_size=L, capacity_factor=1.25, **changes):
    """The layer, compiled as a whole."""
    return jax.jit(switch(experts, group_size, capacity_factor, **changes))


def _on_mesh(shape, function, *arguments):
    with jax.set_mesh(make_mesh(MeshConfig(*shape))):
        return jax.device_get(jax.jit(function)(*arguments))


@pytest.mark.parametrize(
    ("mesh", "size", "policy"),
    # Groups of a row on all; on some, groups of half a row and of two rows.
    [
        *((mesh, L, "argmax") for mesh in MESHES[1:]),
        *(((2, 4, 1), L // 2, policy) for policy in ROUTER_POLICIES),
        *(((2, 2, 1), 2 * L, policy) for policy in ROUTER_POLICIES),
    ],
)
def test_gradients_and_noise_are_the_same_on_every_mesh(mesh, size, policy):
    x, valid, p = _inputs()
    jitter = 0.0 if policy == "input_dropout" else 0.1
    layer = _switch(
        group_size=size, jitter_noise=jitter, expert_dropout_rate=0.3, router_policy=policy
    )
    weights = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)

    def loss(x, p):
        y, s = layer(x, valid, p, jax.random.key(0))
        return jnp.sum(y * weights) + s.load_balance_loss + s.z_loss

    gradient = jax.value_and_grad(loss, argnums=(0, 1))
    expected = _on_mesh((1, 1, 1), gradient, x, p)
    got = _on_mesh(mesh, gradient, x, p)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize(
    ("mesh", "experts", "chosen", "size"),
    [
        *(((1, 8, 1), 8, 1, L), ((1, 4, 2), 8, 1, L), ((2, 4, 1), 8, 2, L)),
        *(((2, 2, 1), 8, 1, 2 * L), ((2, 2, 1), 8, 1, L // 2)),  # two rows a group, and half of one
        *(((1, 8, 1), 2, 1, L), ((1, 4, 2), 2, 1, L)),  # fewer experts than devices
    ],
)
def test_two_chunks_of_slots_give_what_one_gives(mesh, experts, chosen, size, monkeypatch):
    x, valid, p = _inputs()
    p = Weights(p.router[:, :experts], (p.wi[0][:experts],), p.wo[:experts])
    switch_layer = switch(experts, size, 2.0, jitter_noise=0.1, num_selected_experts=chosen)
    exchanges = []

    def loss(x, p):
        y, s = switch_layer(x, valid, p, jax.random.key(0))
        return jnp.sum(y**3) + s.load_balance_loss

    def chunks(expert_shards, rows):
        exchanges.append((expert_shards, rows))
        return 2

    gradient = jax.value_and_grad(loss, argnums=(0, 1))
    expected = _on_mesh((1, 1, 1), gradient, x, p)
    monkeypatch.setattr(layer, "num_chunks", chunks)
    got = _on_mesh(mesh, gradient, x, p)
    slots = expert_capacity(size, experts, 2.0)
    groups = B * L // size // (mesh[0] * mesh[1])
    assert exchanges[0] == (min(mesh[1], experts), groups * slots)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize(("multiple", "slots"), [(1, 15), (8, 16)])
def test_slots_need_not_be_a_multiple_of_eight(multiple, slots):
    """Of 60 tokens 15 come to each of 4 experts at balance."""
    rng = np.random.default_rng(0)
    p = _inputs()[2]
    p = Weights(p.router[:, :4], (p.wi[0][:4],), p.wo[:4])
    x, valid = rng.normal(size=(4, 60, D)).astype(np.float32), np.ones((4, 60), bool)
    layer = _switch(4, 60, 1.0, expert_capacity_multiple=multiple)
    expected = reference.switch_ffn(x, x @ p.router, slots, valid, p.wi[0], p.wo)
    y, stats = _on_mesh((1, 4, 1), layer, x, valid, p)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    kept = reference.assign(x @ p.router, slots, valid).sum((2, 3)) > 0
    np.testing.assert_allclose(stats.dropped, 1 - kept.mean(), rtol=1e-5)


def test_jitter_moves_the_router_only():
    """With one expert the gate is 1 whatever the router sees: the output must not move at all."""
    x, valid, p = _inputs()
    one = Weights(p.router[:, :1], (p.wi[0][:1],), p.wo[:1])
    of_one, of_all = _switch(1, L, 1.0, jitter_noise=0.5), _switch(jitter_noise=0.5)
    clean, _ = of_one(x, valid, one)
    noisy, _ = of_one(x, valid, one, jax.random.key(0))
    np.testing.assert_array_equal(clean, noisy)
    _, clean = of_all(x, valid, p)
    _, noisy = of_all(x, valid, p, jax.random.key(0))
    assert abs(float(clean.z_loss - noisy.z_loss)) > 1e-3


def test_expert_dropout_zeroes_the_rate_and_keeps_the_mean():
    x = np.ones((B, L, D), np.float32)
    wi = np.full((1, D, 512), 1 / D, np.float32)
    wo = np.full((1, 512, D), 1 / 512, np.float32)
    p = Weights(np.zeros((D, 1), np.float32), (wi,), wo)
    layer = _switch(1, L, 1.0, expert_dropout_rate=0.4)
    y, _ = layer(x, np.ones((B, L), bool), p, jax.random.key(0))
    # Each output is the mean of 512 hidden units, each 0 or 1 / 0.6.
    kept = np.asarray(y)[..., 0] * 0.6
    np.testing.assert_allclose(kept.mean(), 0.6, atol=0.01)
    np.testing.assert_allclose(kept.std(), (0.4 * 0.6 / 512) ** 0.5, rtol=0.3)


def test_the_router_is_float32_in_a_bfloat16_model():
    x, valid, p = _inputs()
    x = jnp.asarray(x, jnp.bfloat16)
    y, stats = _switch()(x, valid, p)
    assert y.dtype == jnp.bfloat16
    logits = np.asarray(x, np.float32) @ p.router
    z = np.log(np.exp(logits).sum(-1))[valid]
    np.testing.assert_allclose(stats.z_loss, (z**2).mean(), rtol=1e-5)  # bfloat16 errs by 1e-3


def test_a_row_of_several_groups_is_routed_group_by_group():
    x, valid, p = _inputs()
    layer, key = _switch(group_size=L // 2, jitter_noise=0.1), jax.random.key(0)
    y, stats = layer(x, valid, p, key)
    split = [a.reshape(2 * B, L // 2, *a.shape[2:]) for a in (x, valid)]
    expected, same = layer(*split, p, key)
    np.testing.assert_array_equal(y, np.asarray(expected).reshape(x.shape))
    np.testing.assert_array_equal(stats.load, same.load)


def test_fewer_experts_than_devices_on_the_expert_axis():
    x, valid, p = _inputs()
    few = Weights(p.router[:, :2], (p.wi[0][:2],), p.wo[:2])
    layer = switch(2, L, 1.25, jitter_noise=0.1, expert_dropout_rate=0.3)

    def loss(x, p):
        y, s = layer(x, valid, p, jax.random.key(0))
        return jnp.sum(y**3) + s.load_balance_loss

    gradient = jax.value_and_grad(loss, argnums=(0, 1))
    expected = _on_mesh((1, 1, 1), gradient, x, few)
    for mesh in ((1, 8, 1), (1, 4, 2)):
        got = _on_mesh(mesh, gradient, x, few)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())
