import jax.numpy as jnp
import numpy as np

from switch_jax.train_step.cross_entropy import token_sums


def test_token_sums_by_hand():
    # Two real tokens: p(target) = 0.5 and 0.1, normalisers 4 and 10; the third is padding.
    logits = jnp.log(jnp.array([[[2.0, 1.0, 1.0], [1.0, 8.0, 1.0], [9.0, 9.0, 9.0]]]))
    got = token_sums(logits, jnp.array([[0, 2, 1]]), jnp.array([[1.0, 1.0, 0.0]]))
    np.testing.assert_allclose(got.cross_entropy, -np.log(0.5) - np.log(0.1), rtol=1e-6)
    np.testing.assert_allclose(got.z, np.log(4) ** 2 + np.log(10) ** 2, rtol=1e-6)
    assert float(got.correct) == 1
    assert float(got.tokens) == 2
