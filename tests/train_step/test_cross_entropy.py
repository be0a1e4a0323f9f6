import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.train_step.cross_entropy import soft_cross_entropy, token_sums


def test_token_sums_by_hand():
    # Two real tokens: p(target) = 0.5 and 0.1, normalisers 4 and 10; the third is padding.
    logits = jnp.log(jnp.array([[[2.0, 1.0, 1.0], [1.0, 8.0, 1.0], [9.0, 9.0, 9.0]]]))
    got = token_sums(logits, jnp.array([[0, 2, 1]]), jnp.array([[1.0, 1.0, 0.0]]))
    np.testing.assert_allclose(got.cross_entropy, -np.log(0.5) - np.log(0.1), rtol=1e-6)
    np.testing.assert_allclose(got.z, np.log(4) ** 2 + np.log(10) ** 2, rtol=1e-6)
    assert float(got.correct) == 1
    assert float(got.tokens) == 2


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_soft_cross_entropy_and_its_gradient_are_those_of_the_formula(temperature):
    rng = np.random.default_rng(0)
    student, teacher = 3 * rng.normal(size=(2, 4, 5, 7)).astype(np.float32)
    weights = (rng.random((4, 5)) < 0.7).astype(np.float32)
    p, q = (_softmax(x.astype(np.float64) / temperature) for x in (teacher, student))
    value, gradient = jax.value_and_grad(soft_cross_entropy)(student, teacher, weights, temperature)
    np.testing.assert_allclose(value, -((p * np.log(q)).sum(-1) * weights).sum(), rtol=1e-6)
    expected = (q - p) / temperature * weights[..., None]
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-6)
    assert 0 < weights.sum() < weights.size, "some tokens should be padding"


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
