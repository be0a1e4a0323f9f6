"""The router in bfloat16 (Table 2): what each of its steps gives is rounded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.config import MeshConfig
from switch_jax.moe import assign
from switch_jax.moe.random_streams import RouterKey, Stream, noise
from switch_jax.moe.router import round_to, router_logits
from switch_jax.moe.tokens_choose import top_choices
from switch_jax.partitioning.mesh import make_mesh
from tests.moe import layers, reference
from tests.moe.layers import Weights, switch

B, L, D, F, E = 8, 16, 12, 16, 8


def _bf16(values):
    """Rounded to bfloat16, as float64."""
    return np.asarray(values).astype(jnp.bfloat16).astype(np.float64)


def _rounded_softmax(logits):
    """Log-normalizer and probabilities."""
    normalizer = _bf16(np.log(np.exp(logits).sum(-1)))
    return normalizer, _bf16(np.exp(_bf16(logits - normalizer[..., None])))


def test_rounding_is_that_of_numpy_also_in_a_compiled_program():
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    rounded = jax.jit(lambda x: round_to(jnp.bfloat16, x * 3))(values)
    assert rounded.dtype == jnp.float32
    np.testing.assert_array_equal(rounded, _bf16(values * np.float32(3)))
    np.testing.assert_array_equal(round_to(jnp.float32, values), values)


@pytest.mark.parametrize("jitter", [0.0, 0.1])
def test_logits_are_the_product_of_rounded_factors_and_rounded(jitter):
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=s).astype(np.float32) for s in ((4, 6, 64), (64, 5)))
    weights = rng.normal(size=(4, 6, 5)).astype(np.float32)
    bits = RouterKey(jax.random.key(3), jnp.int32(0), 0, 12).bits(Stream.ROUTER_INPUT, x.shape)
    factor = 1 + np.float32(jitter) * np.asarray(noise(bits))

    def ours(x, kernel):
        logits = router_logits(x, kernel.astype(jnp.bfloat16), jitter, bits)
        return jnp.sum(logits.astype(jnp.float32) * weights), logits

    (_, logits), gradients = jax.jit(jax.value_and_grad(ours, (0, 1), has_aux=True))(x, kernel)
    assert logits.dtype == jnp.bfloat16
    rows, matrix = _bf16(x * factor), _bf16(kernel)
    np.testing.assert_allclose(_bf16(logits), rows @ matrix, rtol=2**-8)  # half a unit
    assert np.mean(_bf16(logits) == _bf16(rows @ matrix)) > 0.97
    weights = _bf16(weights)
    for got, exact in zip(
        gradients,
        (weights @ matrix.T * factor, np.einsum("bld,ble->de", rows, weights)),
        strict=True,
    ):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, exact, rtol=2**-7, atol=1e-5)


def test_gate_and_what_the_losses_take_are_rounded_and_counts_are_exact():
    rng = np.random.default_rng(1)
    logits = _bf16(rng.normal(size=(3, 2000, 5)) * 3)
    valid = rng.random((3, 2000)) < 0.8

    @jax.jit
    def of_one_choice(logits):
        return layers.assign(top_choices(logits.astype(jnp.float32), 1), logits, 320, valid)

    got = of_one_choice(jnp.asarray(logits, jnp.bfloat16))
    expected = assign(jnp.asarray(logits, jnp.float32), 320, valid)
    for name in ("expert_index", "position_in_expert", "token_index", "load"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
    assert got.load.max() > 256  # beyond which bfloat16 has no odd numbers

    normalizer, probs = _rounded_softmax(logits)
    kept = np.asarray(got.position_in_expert) < 320
    gate = np.take_along_axis(probs, logits.argmax(-1)[..., None], -1)[:, None, :, 0] * kept
    importance = _bf16((probs * valid[..., None]).sum(1))
    entropy = -(probs * _bf16(logits - normalizer[..., None])).sum(-1)
    for values, wanted in (
        (got.gate, gate),
        (got.router.log_normalizer, normalizer),
        (got.router.importance, importance),
        (got.router.entropy, _bf16(entropy)),
    ):
        assert values.dtype == jnp.float32
        np.testing.assert_array_equal(values, _bf16(values))
        np.testing.assert_allclose(values, wanted, rtol=2**-7)
        assert np.mean(np.asarray(values) == wanted) > 0.99
    assert np.abs(gate - np.asarray(expected.gate)).max() > 1e-3


def _layer_inputs():
    """Products and sums of the router's are exact in float32, whatever the order."""
    rng = np.random.default_rng(0)
    x = rng.integers(-8, 9, size=(B, L, D)).astype(np.float32) / 4
    router = rng.integers(-4, 5, size=(D, E)).astype(np.float32) / 4
    wi, wo = rng.normal(size=(E, D, F)) / D**0.5, rng.normal(size=(E, F, D)) / F**0.5
    weights = Weights(router, (wi.astype(np.float32),), wo.astype(np.float32))
    return x, rng.random((B, L)) < 0.8, weights


def _with_bfloat16_router(weights):
    return weights._replace(router=weights.router.astype(jnp.bfloat16))


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 2)])
def test_the_layer_equals_the_one_hot_reference_with_rounded_gates(mesh):
    x, valid, weights = _layer_inputs()
    layer = switch(E, L, 1.25, expert_capacity_multiple=1)
    y_weights = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)

    def loss(x, weights):
        weights = _with_bfloat16_router(weights)
        y, s = layer(x, valid, weights)
        return jnp.sum(y * y_weights) + s.load_balance_loss + s.z_loss, y

    with jax.set_mesh(make_mesh(MeshConfig(*mesh))):
        (_, y), (x_grad, grads) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(
            x, weights
        )

    logits = _bf16(x.astype(np.float64) @ weights.router)
    dispatch = reference.assign(logits, 3, valid) > 0
    probs = _rounded_softmax(logits)[1]
    outputs = np.maximum(np.einsum("gsd,edf->gsef", x, weights.wi[0]), 0)
    outputs = np.einsum("gsef,efd->gsed", outputs, weights.wo)
    expected = np.einsum("gsed,gse->gsd", outputs, dispatch.any(-1) * probs)
    np.testing.assert_allclose(y, expected, atol=1e-5)

    # Gradients are those of float32, but for the rounding of each step.
    _, wanted = reference.loss_and_gradients(x, weights, 3, valid, y_weights)
    for got, exact in zip((x_grad, grads.router, *grads.wi, grads.wo), wanted, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, exact, atol=0.02 * np.abs(exact).max())
