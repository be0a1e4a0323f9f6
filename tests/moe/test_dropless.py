"""The Switch layer for decoding, against each token's expert by itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.config import MeshConfig
from switch_jax.moe import SwitchWeights
from switch_jax.moe.dropless import block_rows, cut_into_blocks
from switch_jax.partitioning.mesh import make_mesh
from tests.moe import reference
from tests.moe.cases import E, L, inputs
from tests.moe.layers import dropless, switch

D, F = 8, 16


def parameters(experts, gated, seed=0):
    rng = np.random.default_rng(seed)
    wi = tuple(
        rng.normal(size=(experts, D, F)).astype(np.float32) for _ in range(2 if gated else 1)
    )
    router = rng.normal(size=(D, experts)).astype(np.float32)
    return SwitchWeights(router, wi, rng.normal(size=(experts, F, D)).astype(np.float32))


def one_by_one(x, valid, weights, activation):
    """[B, L, D] -> [B, L, D], a token after the other."""
    result = np.zeros_like(x)
    for position in zip(*np.nonzero(valid), strict=True):
        token = x[position]
        probs = reference.softmax(token @ weights.router)
        e = probs.argmax()
        hidden = activation(*[token @ w[e] for w in weights.wi])
        result[position] = probs[e] * (np.asarray(hidden) @ weights.wo[e])
    return result


def gelu_gated(gate, linear):
    return jax.nn.gelu(gate) * linear


@pytest.mark.parametrize(
    ("mesh", "experts", "activation"),
    [
        ((1, 1, 1), 4, jax.nn.relu),
        ((2, 2, 2), 4, gelu_gated),
        ((1, 8, 1), 2, jax.nn.relu),  # fewer experts than devices
    ],
)
def test_each_token_gets_its_expert_and_none_is_dropped(mesh, experts, activation):
    weights = parameters(experts, gated=activation is gelu_gated)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(8, 5, D)).astype(np.float32)
    x[3:] = x[3] + 0.01 * x[3:]  # a crowd that all goes to one expert
    valid = rng.random((8, 5)) < 0.8
    with jax.set_mesh(make_mesh(MeshConfig(*mesh))):
        y = jax.jit(lambda x, valid, w: dropless(x, valid, w, activation))(x, valid, weights)
    np.testing.assert_allclose(y, one_by_one(x, valid, weights, activation), atol=2e-5)


@pytest.mark.parametrize(("number", "dtype"), [(2, "float32"), (1, "bfloat16")])
def test_it_gives_what_the_layer_gives_where_nothing_is_dropped(number, dtype):
    """With the same gates, also of several experts and of a router in bfloat16."""
    x, valid, weights = inputs("padding")
    weights = weights._replace(router=jnp.asarray(weights.router, dtype))
    with jax.set_mesh(make_mesh(MeshConfig(1, 4, 2))):
        y, _ = jax.jit(switch(E, L, float(E), num_selected_experts=number))(x, valid, weights)
        step = functools.partial(dropless, num_selected_experts=number)
        found = jax.jit(step)(x, valid, weights)
    np.testing.assert_allclose(found, y, atol=1e-5)
    assert np.abs(y).max() > 0.1


@pytest.mark.parametrize(
    ("tokens", "experts", "chosen", "devices"),
    [
        (32, 128, 128, 4),
        (1, 8, 8, 1),
        (100, 8, 2, 4),  # a crowd at two experts
        (5000, 8, 8, 1),  # in blocks of 256 rows
    ],
)
def test_fewer_than_two_rows_a_token_are_computed(tokens, experts, chosen, devices):
    """In all, by devices that have a share of the experts each, and see all tokens."""
    expert = np.random.default_rng(2).integers(0, chosen, tokens)
    rows = block_rows(tokens, experts)
    here, computed = experts // devices, 0
    for device in range(devices):
        own = expert - device * here
        own = np.where((own >= 0) & (own < here), own, here)
        blocks = cut_into_blocks(jnp.array(own), here, rows)
        load = np.bincount(own, minlength=here + 1)[:here]
        assert int(blocks.first_block[-1]) == sum(-(-n // rows) for n in load)
        computed += int(blocks.first_block[-1]) * rows
    assert tokens <= computed < 2 * tokens


def test_blocks_are_as_small_where_devices_share_the_experts():
    """40 tokens, 16 experts, two on each device: blocks of 40 // 16 rows, not of 40 // 2."""
    weights, x = parameters(16, gated=False), np.ones((8, 5, D), np.float32)
    with jax.set_mesh(make_mesh(MeshConfig(1, 8, 1))):
        jaxpr = jax.make_jaxpr(lambda x, w: dropless(x, x[..., 0] > 0, w))(x, weights)
    assert f"f32[2,{F}] = dot_general" in str(jaxpr)
    assert f"f32[20,{F}] = dot_general" not in str(jaxpr)
