"""The router in bfloat16 (Table 2): what each of its steps gives is rounded."""

import jax
import jax.numpy as jnp
import numpy as np

from switch_jax.config import MeshConfig
from switch_jax.moe import SwitchWeights, assign
from switch_jax.moe.random_streams import RouterKey, Stream, noise
from switch_jax.moe.tokens_choose import top_choices
from switch_jax.partitioning.mesh import make_mesh
from tests.moe import layers, reference
from tests.moe.cases import KEY
from tests.moe.layers import switch

B, L, D, F, E = 8, 16, 12, 16, 8


def _bf16(values):
    """Rounded to bfloat16, as float64."""
    return np.asarray(values).astype(jnp.bfloat16).astype(np.float64)


def _rounded_softmax(logits):
    """Log-normalizer and probabilities."""
    normalizer = _bf16(np.log(np.exp(logits).sum(-1)))
    return normalizer, _bf16(np.exp(_bf16(logits - normalizer[..., None])))


def test_gate_and_what_the_losses_take_are_rounded_and_counts_are_exact():
    rng = np.random.default_rng(1)
    logits = _bf16(rng.normal(size=(3, 2000, 5)) * 3)
    valid = rng.random((3, 2000)) < 0.8

    @jax.jit
    def of_one_choice(logits):
        return layers.assign(top_choices(logits.astype(jnp.float32), 1), logits, 320, valid)

    got = of_one_choice(jnp.asarray(logits, jnp.bfloat16))
    expected = jax.jit(assign, static_argnums=1)(logits.astype(np.float32), 320, valid)
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


def test_the_layer_equals_the_one_hot_reference_with_rounded_logits_and_gates():
    rng = np.random.default_rng(0)
    x, y_weights = (rng.normal(size=(B, L, D)).astype(np.float32) for _ in range(2))
    valid = rng.random((B, L)) < 0.8
    # Products and sums of the router's are exact in float32, whatever the order.
    router = rng.integers(-4, 5, size=(D, E)).astype(np.float32) / 4
    wi, wo = rng.normal(size=(E, D, F)) / D**0.5, rng.normal(size=(E, F, D)) / F**0.5
    weights = SwitchWeights(router, (wi.astype(np.float32),), wo.astype(np.float32))
    layer = switch(E, L, 1.25, expert_capacity_multiple=1, jitter_noise=0.1)
    bits = RouterKey(KEY, jnp.int32(0), 0, L).bits(Stream.ROUTER_INPUT, x.shape)
    factor = 1 + 0.1 * np.asarray(noise(bits))

    def loss(x, weights):
        rounded = weights._replace(router=weights.router.astype(jnp.bfloat16))
        y, s = layer(x, valid, rounded, KEY)
        return jnp.sum(y * y_weights) + s.load_balance_loss + s.z_loss, y

    with jax.set_mesh(make_mesh(MeshConfig(2, 2, 2))):
        gradient = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
        (_, y), (x_grad, grads) = gradient(x, weights)

    logits = _bf16(_bf16(x * factor) @ router)
    combine = reference.assign(logits, 3, valid)
    probs = _rounded_softmax(logits)[1]
    outputs = np.maximum(np.einsum("gsd,edf->gsef", x, weights.wi[0]), 0)
    outputs = np.einsum("gsef,efd->gsed", outputs, weights.wo)
    expected = np.einsum("gsed,gse->gsd", outputs, (combine > 0).any(-1) * probs)
    np.testing.assert_allclose(y, expected, atol=1e-5)

    # Gradients are those of float32, but for the rounding of each step.
    _, wanted = reference.loss_and_gradients(
        x, weights, 3, valid, y_weights, chosen=logits.argmax(-1), factor=factor, combine=combine
    )
    for got, exact in zip((x_grad, grads.router, *grads.wi, grads.wo), wanted, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, exact, atol=0.02 * np.abs(exact).max())
