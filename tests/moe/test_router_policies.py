"""How an expert is chosen in training: argmax, sample, input_dropout (App. C, Table 11)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.config import MeshConfig
from switch_jax.moe import SwitchWeights, dropless_ffn, switch_ffn
from switch_jax.moe.random_streams import RouterKey, Stream, gumbel
from switch_jax.moe.routing import Router
from switch_jax.partitioning.mesh import make_mesh
from tests.moe import reference
from tests.moe.cases import CASES, KEY, E, L, compare, drawn, in_order, inputs, layer
from tests.moe.layers import config_of, switch, tokens


def _sampled(x, valid, p):
    """[B, L]: the expert whose gated output each token has, with slots for all tokens."""
    run = layer((1, 1, 1), float(E), router_policy="sample")
    y = run(x, valid, p, np.ones_like(x))[0]
    probs = reference.softmax(x @ p.router)
    hidden = np.maximum(np.einsum("gsd,edf->gsef", x, p.wi[0]), 0)
    outputs = np.einsum("gsef,efd->gsed", hidden, p.wo) * probs[..., None]  # [B, L, E, D]
    distance = np.abs(outputs - y[:, :, None]).max(-1)  # [B, L, E]
    assert distance.min(-1)[valid].max() < 1e-5
    return distance.argmin(-1)


@pytest.mark.parametrize(
    ("mesh", "policy", "jitter", "factor", "capacity"),
    [
        ((1, 1, 1), "argmax", 0.1, 1.25, 2),
        ((8, 1, 1), "argmax", 0.0, 1.25, 2),
        ((1, 8, 1), "argmax", 0.1, 1.25, 2),
        ((2, 2, 2), "argmax", 0.1, 0.5, 1),
        ((2, 2, 2), "sample", 0.0, 1.25, 2),
        ((2, 2, 2), "input_dropout", 0.0, 1.25, 2),
    ],
)
def test_the_layer_equals_the_one_hot_reference_given_what_was_drawn(
    mesh, policy, jitter, factor, capacity
):
    """Only the router sees what multiplies its input."""
    for case in CASES:
        x, valid, p = inputs(case)
        uniform = drawn(Stream.ROUTER_INPUT, x.shape)
        noise = 1 + jitter * uniform
        if policy == "input_dropout":
            noise = np.where(uniform < -0.8, 0, 1 / 0.9)
        chosen = in_order((x * noise) @ p.router, 1)
        if policy == "sample":
            chosen = _sampled(x, valid, p)[:, None]
            found = set(chosen[:, 0][valid])
            assert (case == "all tokens to one expert") == (len(found) == 1)
            assert (case != "empty experts") or found == {5, 6, 7}
        compare(
            mesh, case, capacity, chosen, factor=noise, capacity_factor=factor,
            router_policy=policy, jitter_noise=jitter,
        )  # fmt: skip


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
    key = RouterKey(KEY, jnp.int32(0), 0, 4096)
    values = np.asarray(gumbel(key.bits(Stream.SAMPLED_EXPERT, (16, 4096, 64))))  # 2^22 numbers
    assert np.isfinite(values).all() and -2.9 <= values.min() < -2.5 and 12 < values.max() < 17
    np.testing.assert_allclose(values.mean(), np.euler_gamma, atol=2e-3)
    np.testing.assert_allclose(values.std(), np.pi / 6**0.5, atol=2e-3)


class ById(Router):
    """A policy of one's own: the expert follows from the token's id."""

    def choose(self, distribution, tokens, bias, key):
        choices = (tokens.ids % self.config.num_experts)[:, None]
        return choices, distribution.gates(choices)


def test_a_policy_needs_choose_alone():
    """In a layer with room for all tokens, and in decoding."""
    x, valid, p = inputs("padding")
    ids = np.random.default_rng(0).integers(0, 100, valid.shape)
    config = config_of(E, group_size=L, eval_expert_capacity_factor=float(E))
    router = ById(config, config.stacks[0])
    of_ids = tokens(valid)._replace(ids=jnp.asarray(ids))
    with jax.set_mesh(make_mesh(MeshConfig(2, 2, 2))):
        layer = jax.jit(lambda *a: switch_ffn(*a, router, jax.nn.relu, training=False))
        y, _ = layer(x, of_ids, p)
        decoded = jax.jit(lambda *a: dropless_ffn(*a, router, jax.nn.relu))(x, of_ids, p)
    chosen = ids % E
    gate = np.take_along_axis(reference.softmax(x @ p.router), chosen[..., None], -1)
    hidden = np.maximum(np.einsum("bld,bldf->blf", x, p.wi[0][chosen]), 0)
    expected = np.einsum("blf,blfd->bld", hidden, p.wo[chosen]) * gate * valid[..., None]
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(decoded, expected, atol=1e-5)
