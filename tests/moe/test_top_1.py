"""Top-1 routing by sorting and by the kernel of TPUs, and the losses of what it gives."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.kernels import by_platform
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


def _random(*shape):
    rng = np.random.default_rng(0)
    return rng.normal(size=shape).astype(np.float32), rng.random(shape[:2]) < 0.8


def _groups():
    logits, valid = _random(5, 40, 8)
    logits[1] = 5 * (np.arange(8) == 2)  # all tokens to one expert
    logits[2] = 0  # ties, which go to the lowest expert
    logits[3, :, 2:] = -9  # empty experts
    valid[4] = False
    return logits, valid


CASES = {
    "capacity 1": (*_groups(), 1),
    "several slots": (*_groups(), 6),
    "a slot for every token": (*_groups(), 40),
    "one expert": (*_random(2, 9, 1), 3),
}


def _with_choices(a):
    """[G, S] -> [G, 1, S], of the fields that have an axis of choices."""
    fields = ("expert_index", "gate", "position_in_expert")
    return a._replace(**{name: getattr(a, name)[:, None] for name in fields})


def _on_a_tpu(logits, slots, valid):
    *arrays, load = route(logits, valid, slots, interpret=True)
    return _with_choices(Assignment(*arrays[:4], RouterSums(*arrays[4:]), load))


def _on_a_gpu(logits, slots, valid):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_platform, "platform", lambda: "gpu")
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
    np.testing.assert_array_equal(got.router.highest_logit, logits.max(-1))
    np.testing.assert_allclose(got.router.entropy, -(probs * np.log(probs)).sum(-1), atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 300, 40), (1, 70_000, 4)])
def test_both_implementations_agree_where_a_group_takes_several_blocks(shape):
    logits, valid = _random(*shape)
    slots = expert_capacity(shape[1], shape[2], 1.0)
    both = [jax.jit(f, static_argnums=1)(3 * logits, slots, valid) for f in (assign, _on_a_tpu)]
    for a, b in zip(*map(jax.tree.leaves, both), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("on_a_tpu", [False, True])
def test_gradients_equal_those_of_autodiff(on_a_tpu, monkeypatch):
    """In a tie, by the probability of the chosen expert alone."""
    if on_a_tpu:
        kernel = functools.partial(route_gradient, interpret=True)
        monkeypatch.setattr(top_1, "_gradient", kernel)
    groups, tokens, experts = 3, 300, 5  # two blocks of the kernel, of which one is full
    logits, valid = _random(groups, tokens, experts)
    logits[0] = 0
    rng = np.random.default_rng(9)
    weights = [
        rng.normal(size=shape).astype(np.float32)
        for shape in ((groups, tokens), (groups, tokens), (groups, experts))
    ]
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


def test_load_balance_loss_by_hand():
    # f = (2/3, 1/3), P = (1.7/3, 1.3/3)
    expected = 2 * (2 / 3 * 1.7 / 3 + 1 / 3 * 1.3 / 3)
    loss = load_balance_loss(jnp.array([[1.7, 1.3]]), jnp.array([[2.0, 1.0]]))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_load_balance_loss_is_1_at_balance_and_e_when_one_expert_has_all():
    experts = 8
    even, one = jnp.full((3, experts), 2.0), jnp.zeros((3, experts)).at[:, 0].set(16.0)
    assert load_balance_loss(even, even) == 1
    assert load_balance_loss(one, one) == experts


def test_router_z_loss_by_hand():
    normalizer = jnp.log(jnp.array([[3.0, 8.0, 110.0]]))
    valid = jnp.array([[True, True, False]])
    expected = (math.log(3) ** 2 + math.log(8) ** 2) / 2
    np.testing.assert_allclose(router_z_loss(normalizer, valid), expected, rtol=1e-6)


def test_losses_are_0_without_a_real_token():
    nothing = jnp.zeros((3, 5))
    assert load_balance_loss(nothing, nothing) == 0
    assert router_z_loss(nothing + 1, nothing > 0) == 0
