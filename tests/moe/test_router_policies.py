"""How an expert is chosen in training: argmax, sample, input_dropout (App. C, Table 11)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.config import MeshConfig
from switch_jax.config.model import ROUTER_POLICIES
from switch_jax.moe import SwitchWeights, expert_capacity
from switch_jax.moe.random_streams import RouterKey, Stream, gumbel, noise
from switch_jax.partitioning.mesh import make_mesh
from tests.moe import reference
from tests.moe.layers import switch

B, L, D, F, E = 8, 16, 12, 16, 8
KEY = jax.random.key(5)
MESHES = [(1, 1, 1), (8, 1, 1), (2, 4, 1), (1, 8, 1), (1, 4, 2), (2, 2, 2)]


def _inputs(case):
    """x, valid, weights; x has a constant feature, by which the router can prefer an expert."""
    rng = np.random.default_rng(list(CASES).index(case))
    x = rng.normal(size=(B, L, D)).astype(np.float32)
    x[..., 0] = 1
    valid = np.ones((B, L), bool)
    router = rng.normal(size=(D, E)).astype(np.float32) / 2
    CASES[case](router, valid)
    wi, wo = rng.normal(size=(E, D, F)) / D**0.5, rng.normal(size=(E, F, D)) / F**0.5
    return x, valid, SwitchWeights(router, (wi.astype(np.float32),), wo.astype(np.float32))


def _ties(router, valid):
    router[:] = 0


def _all_to_one(router, valid):
    router[0, 2] = 40


def _empty_experts(router, valid):
    router[0, :6] = -40


def _padding(router, valid):
    valid[:] = np.random.default_rng(9).random((B, L)) < 0.7
    valid[3] = False


CASES = {
    "random": lambda router, valid: None,
    "ties": _ties,
    "all tokens to one expert": _all_to_one,
    "empty experts": _empty_experts,
    "padding": _padding,
}


def _bits(stream, tokens, shape, router_index=0):
    return RouterKey(KEY, jnp.int32(router_index), 0, tokens).bits(stream, shape)


@functools.cache
def _layer(mesh, policy, factor=1.25):
    """A compiled function of x, valid, weights and weights of y: y, loss and gradients."""
    layer = switch(E, L, factor, router_policy=policy, expert_capacity_multiple=1)

    def loss(x, p, valid, y_weights):
        y, s = layer(x, valid, p, KEY)
        return jnp.sum(y * y_weights) + s.load_balance_loss + s.z_loss, y

    gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))

    def run(x, valid, p, y_weights):
        with jax.set_mesh(make_mesh(MeshConfig(*mesh))):
            (loss, y), (x_grad, p_grad) = jax.device_get(gradient(x, p, valid, y_weights))
        return y, loss, (x_grad, p_grad.router, *p_grad.wi, p_grad.wo)

    return run


def _drawn(x, valid, p):
    """[B, L]: the expert whose gated output each token has, with slots for all tokens."""
    y = _layer((1, 1, 1), "sample", factor=float(E))(x, valid, p, np.ones_like(x))[0]
    probs = reference.softmax(x @ p.router)
    hidden = np.maximum(np.einsum("gsd,edf->gsef", x, p.wi[0]), 0)
    outputs = np.einsum("gsef,efd->gsed", hidden, p.wo) * probs[..., None]  # [B, L, E, D]
    distance = np.abs(outputs - y[:, :, None]).max(-1)  # [B, L, E]
    assert distance.min(-1)[valid].max() < 1e-5
    return distance.argmin(-1)


def _compare(got, x, valid, p, capacity, y_weights, **given):
    double = jax.tree.map(lambda a: np.asarray(a, np.float64), (x, p, y_weights))
    loss, gradients = reference.loss_and_gradients(
        double[0], double[1], capacity, valid, double[2], **given
    )
    np.testing.assert_allclose(got[1], loss, rtol=1e-5, atol=1e-5)
    for a, b in zip(got[2], gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize(
    ("policy", "mesh", "factor", "capacity"),
    [
        *(("argmax", mesh, 1.25, 3) for mesh in MESHES),
        ("sample", (1, 1, 1), 1.25, 3),
        ("sample", (2, 2, 2), 1.25, 3),
        ("input_dropout", (1, 1, 1), 1.25, 3),
        ("input_dropout", (2, 2, 2), 1.25, 3),
        *((policy, (2, 2, 2), 0.5, 1) for policy in ROUTER_POLICIES),
    ],
)
def test_the_layer_equals_the_one_hot_reference_given_what_was_drawn(
    policy, mesh, factor, capacity
):
    assert expert_capacity(L, E, factor, multiple=1) == capacity
    for case in CASES:
        x, valid, p = _inputs(case)
        y_weights = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
        given = {}
        if policy == "sample":
            given["chosen"] = _drawn(x, valid, p)
            chosen = given["chosen"][valid]
            assert (case == "all tokens to one expert") == (len(set(chosen)) == 1)
            assert (case != "empty experts") or set(chosen) == {6, 7}
        if policy == "input_dropout":
            uniform = noise(_bits(Stream.ROUTER_INPUT, L, x.shape))
            given["factor"] = np.where(np.asarray(uniform) < -0.8, 0, 1 / 0.9)
        got = _layer(mesh, policy, factor)(x, valid, p, y_weights)
        _compare(got, x, valid, p, capacity, y_weights, **given)


def _chi_square(counts, expected):
    return ((counts - expected) ** 2 / expected).sum()


def test_experts_are_drawn_as_often_as_the_softmax_says():
    """All tokens are the same, so that their logits are."""
    rows, length = 32, 512
    x = np.ones((rows, length, 1), np.float32)
    router = np.array([[0.0, 1.0, 2.0, -1.0, -3.0, 0.5]], np.float32)
    p = SwitchWeights(router, (np.ones((6, 1, 1), np.float32),), np.ones((6, 1, 1), np.float32))
    layer = switch(6, length, 6.0, router_policy="sample")

    @jax.jit
    def load(key, router_index):
        return layer(x, jnp.ones((rows, length), bool), p, key, router_index)[1].load

    expected = reference.softmax(router[0]) * rows * length
    loads = [np.asarray(load(jax.random.key(k), n)) * rows * length for k in (0, 1) for n in (0, 1)]
    for counts in loads:
        assert _chi_square(counts, expected) < 20.5  # of 5 degrees of freedom, exceeded in 0.1 %
    assert _chi_square(sum(loads), 4 * expected) < 20.5
    assert len({tuple(counts) for counts in loads}) == 4


def test_gumbel_noise_is_finite_at_both_ends():
    bits = _bits(Stream.SAMPLED_EXPERT, 4096, (16, 4096, 64))  # 2^22 numbers
    values = np.asarray(gumbel(bits))
    assert np.isfinite(values).all() and -2.9 <= values.min() < -2.5 and 12 < values.max() < 17
    np.testing.assert_allclose(values.mean(), np.euler_gamma, atol=2e-3)
    np.testing.assert_allclose(values.std(), np.pi / 6**0.5, atol=2e-3)


@pytest.mark.parametrize("policy", ["sample", "input_dropout"])
def test_without_a_key_the_policy_is_argmax(policy):
    x, valid, p = _inputs("padding")
    results = [
        jax.jit(switch(E, L, 1.25, router_policy=name))(x, valid, p) for name in ("argmax", policy)
    ]
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(a, b)
