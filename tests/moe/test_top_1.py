import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.kernels.routing_kernel import route, route_gradient
from switch_jax.moe import (
    Assignment,
    assign,
    expert_capacity,
    load_balance_loss,
    router_z_loss,
    top_1,
)
from switch_jax.moe.router import RouterSums
from tests.moe import reference


def _random(shape=(3, 40, 5), seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape).astype(np.float32), rng.random(shape[:2]) < 0.8


def _all_to_one(shape=(2, 16, 4)):
    logits = np.zeros(shape, np.float32)
    logits[..., 2] = 5.0
    return logits, np.ones(shape[:2], bool)


CASES = {
    "random": (*_random(), 6),
    "random, ample capacity": (*_random(seed=1), 40),
    "capacity 1": (*_random(seed=2), 1),
    "all tokens to one expert": (*_all_to_one(), 4),
    "ties go to the lowest expert": (np.zeros((2, 12, 4), np.float32), np.ones((2, 12), bool), 5),
    "all padding": (_random(seed=3)[0], np.zeros((3, 40), bool), 4),
    "one expert": (*_random((2, 9, 1), seed=4), 3),
    "empty experts": (np.pad(_random((2, 20, 2), 5)[0], ((0, 0), (0, 0), (0, 6)),
                             constant_values=-9.0), np.ones((2, 20), bool), 7),
}  # fmt: skip


compiled = jax.jit(assign, static_argnums=1)  # op by op it would be a program an operation


def _with_choices(a):
    """[G, S] -> [G, 1, S], of the fields that have an axis of choices."""
    fields = ("expert_index", "gate", "position_in_expert")
    return a._replace(**{name: getattr(a, name)[:, None] for name in fields})


def _on_a_tpu(logits, slots, valid):
    *arrays, load = route(logits, valid, slots, interpret=True)
    return _with_choices(Assignment(*arrays[:4], RouterSums(*arrays[4:]), load))


def _on_a_gpu(logits, slots, valid):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("switch_jax.moe.slots.platform", lambda: "gpu")
        return _with_choices(top_1._assign_by_sorting(logits, valid, slots))


@pytest.mark.parametrize("implementation", [assign, _on_a_tpu, _on_a_gpu])
@pytest.mark.parametrize("case", CASES)
def test_assign_equals_the_one_hot_reference(case, implementation):
    logits, valid, slots = CASES[case]
    expected = reference.assign(logits, slots, valid)
    got = jax.jit(implementation, static_argnums=1)(logits, slots, valid)
    groups, tokens, experts = logits.shape

    combine = np.zeros((groups, tokens, experts, slots + 1), np.float32)
    g, s = np.indices((groups, tokens))
    combine[g, s, got.expert_index[:, 0], got.position_in_expert[:, 0]] = got.gate[:, 0]
    np.testing.assert_allclose(combine[..., :slots], expected, rtol=1e-6)

    token = np.full((groups, experts, slots), tokens)
    for index in np.argwhere(expected > 0):
        token[index[0], index[2], index[3]] = index[1]
    np.testing.assert_array_equal(got.token_index, token)
    kept = expected.sum((2, 3)) > 0
    np.testing.assert_array_equal(np.asarray(got.position_in_expert[:, 0]) == slots, ~kept)
    np.testing.assert_array_equal(np.asarray(got.gate[:, 0])[~kept], 0.0)
    np.testing.assert_array_equal(got.expert_index[:, 0], logits.argmax(-1))

    normalizer = np.log(np.exp(logits).sum(-1))
    probs = np.exp(logits - normalizer[..., None])
    chosen = np.eye(experts)[logits.argmax(-1)] * valid[..., None]
    np.testing.assert_array_equal(got.load, chosen.sum(1))
    importance = (probs * valid[..., None]).sum(1)
    np.testing.assert_allclose(got.router.importance, importance, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got.router.log_normalizer, normalizer, atol=1e-6)
    np.testing.assert_allclose(got.router.entropy, -(probs * np.log(probs)).sum(-1), atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 600, 3), (1, 300, 40), (1, 70_000, 4)])
def test_both_implementations_agree_where_a_group_takes_several_blocks(shape):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=shape).astype(np.float32) * 3
    valid = rng.random(shape[:2]) < 0.9
    slots = expert_capacity(shape[1], shape[2], 1.0)
    both = [jax.jit(f, static_argnums=1)(logits, slots, valid) for f in (assign, _on_a_tpu)]
    for a, b in zip(*map(jax.tree.leaves, both), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_assign_by_hand():
    #                  expert:  1    0    1    1 (dropped)  0 (padding)
    logits = jnp.log(jnp.array([[[1, 3], [3, 1], [1, 4], [1, 9], [7, 1]]], jnp.float32))
    valid = jnp.array([[True, True, True, True, False]])
    got = compiled(logits, 2, valid)
    np.testing.assert_array_equal(got.expert_index, [[[1, 0, 1, 1, 0]]])
    np.testing.assert_array_equal(got.position_in_expert, [[[0, 0, 1, 2, 2]]])
    np.testing.assert_array_equal(got.token_index, [[[1, 5], [0, 2]]])
    np.testing.assert_allclose(got.gate, [[[0.75, 0.75, 0.8, 0, 0]]], rtol=1e-6)
    assert [a.dtype for a in got[:4]] == [jnp.int32, jnp.float32, jnp.int32, jnp.int32]


def test_gradient_of_the_gate_is_that_of_the_chosen_probability_in_a_tie():
    def gate(logits):
        return assign(logits, 1).gate.sum()

    # d softmax_0 / d logits at (1/2, 1/2): +1/4 and -1/4.
    np.testing.assert_allclose(
        jax.jit(jax.grad(gate))(jnp.zeros((1, 1, 2))), [[[0.25, -0.25]]], rtol=1e-6
    )


@pytest.mark.parametrize("tokens", [40, 700])  # a part of a block of the kernel, and several
@pytest.mark.parametrize("on_a_tpu", [False, True])
def test_gradients_equal_those_of_autodiff(tokens, on_a_tpu, monkeypatch):
    if on_a_tpu:
        kernel = functools.partial(route_gradient, interpret=True)
        monkeypatch.setattr(top_1, "_gradient", kernel)
    logits, valid = _random((3, tokens, 5), seed=8)
    rng = np.random.default_rng(9)
    weights = [rng.normal(size=s).astype(np.float32) for s in ((3, tokens), (3, tokens), (3, 5))]
    kept = reference.assign(logits, 6, valid).sum((2, 3)) > 0

    def plain(logits):
        probs = jax.nn.softmax(logits)
        chosen = jnp.take_along_axis(probs, logits.argmax(-1)[..., None], -1)[..., 0]
        importance = (probs * valid[..., None]).sum(1)
        normalizer = jax.nn.logsumexp(logits, axis=-1)
        outputs = (chosen * kept, normalizer, importance)
        return sum((o * w).sum() for o, w in zip(outputs, weights, strict=True))

    def ours(logits):
        a = assign(logits, 6, valid)
        outputs = (a.gate[:, 0], a.router.log_normalizer, a.router.importance)
        return sum((o * w).sum() for o, w in zip(outputs, weights, strict=True))

    np.testing.assert_allclose(*(jax.jit(jax.grad(f))(logits) for f in (ours, plain)), atol=1e-6)


@jax.jit
def _load_balance_loss(probs, expert, valid):
    chosen = jax.nn.one_hot(expert, probs.shape[-1]) * valid[..., None]
    return load_balance_loss((probs * valid[..., None]).sum(1), chosen.sum(1))


def test_load_balance_loss_by_hand():
    probs = jnp.array([[[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.5, 0.5]]])
    expert = jnp.array([[0, 0, 1, 0]])
    valid = jnp.array([[True, True, True, False]])
    # f = (2/3, 1/3), P = (1.7/3, 1.3/3): 2 * (2/3 * 1.7/3 + 1/3 * 1.3/3)
    expected = 2 * (2 / 3 * 1.7 / 3 + 1 / 3 * 1.3 / 3)
    np.testing.assert_allclose(_load_balance_loss(probs, expert, valid), expected, rtol=1e-6)


@pytest.mark.parametrize("experts", [2, 8, 128])
def test_load_balance_loss_is_1_at_balance_and_e_when_one_expert_has_all(experts):
    tokens = 2 * experts
    all_real = np.ones((3, tokens), bool)
    even = jnp.full((3, tokens, experts), 1 / experts)
    turns = jnp.tile(jnp.arange(tokens) % experts, (3, 1))
    np.testing.assert_allclose(_load_balance_loss(even, turns, all_real), 1.0, rtol=1e-5)
    first = jnp.zeros((3, tokens), int)
    one = jax.nn.one_hot(first, experts)
    np.testing.assert_allclose(_load_balance_loss(one, first, all_real), experts, rtol=1e-5)


def test_losses_of_groups_are_averaged_by_their_real_tokens_and_padding_counts_nowhere():
    logits, valid = _random((4, 16, 6), seed=7)
    valid[2] = False
    a = compiled(logits, 16, valid)
    for whole, part in (
        (load_balance_loss(a.router.importance, a.load),
         lambda g: load_balance_loss(a.router.importance[g:g + 1], a.load[g:g + 1])),
        (router_z_loss(a.router.log_normalizer, valid),
         lambda g: router_z_loss(a.router.log_normalizer[g:g + 1], valid[g:g + 1])),
    ):  # fmt: skip
        parts = [part(g) * valid[g].sum() for g in range(4)]
        np.testing.assert_allclose(whole, sum(parts) / valid.sum(), rtol=1e-6)
    changed = compiled(np.where(valid[..., None], logits, 100.0), 16, valid)
    np.testing.assert_allclose(changed.router.importance, a.router.importance, rtol=1e-6)
    np.testing.assert_allclose(
        router_z_loss(changed.router.log_normalizer, valid),
        router_z_loss(a.router.log_normalizer, valid),
    )


def test_router_z_loss_by_hand():
    normalizer = jnp.log(jnp.array([[3.0, 8.0, 110.0]]))
    valid = jnp.array([[True, True, False]])
    expected = (math.log(3) ** 2 + math.log(8) ** 2) / 2
    np.testing.assert_allclose(router_z_loss(normalizer, valid), expected, rtol=1e-6)


def test_losses_are_0_without_a_real_token():
    logits, _ = _random()
    nothing = np.zeros(logits.shape[:2], bool)
    a = compiled(logits, 4, nothing)
    assert load_balance_loss(a.router.importance, a.load) == 0
    assert router_z_loss(a.router.log_normalizer, nothing) == 0
