import jax
import jax.numpy as jnp
import numpy as np

from switch_jax.moe.router import noise, noise_words, router_logits


def _words(first_group, tokens, shape, number=0):
    return noise_words(jax.random.key(3), jnp.int32(number), first_group, tokens, shape)


def test_noise_is_uniform_and_unrelated_between_groups_tokens_and_features():
    values = np.asarray(noise(_words(0, 512, (2, 512, 256))), np.float64)
    assert values.shape == (2, 512, 256)
    assert -1 <= values.min() < -0.9999 and 0.9999 < values.max() < 1
    expected = values.size / 64
    counts = np.histogram(values, bins=64, range=(-1, 1))[0]
    assert np.sum((counts - expected) ** 2 / expected) < 110  # chi square: 63, 4 deviations of 11
    rows = values.reshape(-1, 256)
    for matrix in (rows, rows.T, np.abs(rows), np.abs(rows.T)):
        correlation = np.corrcoef(matrix)[np.triu_indices(len(matrix), 1)] * matrix.shape[1] ** 0.5
        assert abs(correlation.mean()) < 0.02
        assert 0.97 < correlation.std() < 1.03 and abs(correlation).max() < 7


def test_noise_follows_the_number_of_the_group_alone():
    """However many groups a device has, and however many rows a group is."""
    both = noise(_words(4, 12, (2, 12, 8)))
    np.testing.assert_array_equal(noise(_words(5, 12, (1, 12, 8)))[0], both[1])
    in_rows = noise(_words(4, 12, (6, 4, 8)))
    np.testing.assert_array_equal(np.asarray(in_rows).reshape(2, 12, 8), both)


def test_layers_have_noise_of_their_own():
    first, second = (np.asarray(noise(_words(0, 64, (1, 64, 64), n))) for n in (0, 1))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.07  # 4 deviations of 1 / 64


def test_logits_and_gradients_are_those_of_the_noisy_product():
    rng = np.random.default_rng(0)
    x, router, weights = (
        rng.normal(size=s).astype(np.float32) for s in ((4, 6, 8), (8, 5), (4, 6, 5))
    )
    words = _words(0, 12, x.shape)
    factor = 1 + 0.1 * np.asarray(noise(words))

    def ours(x, router):
        return jnp.sum(router_logits(x, router, 0.1, words) * weights)

    def plain(x, router):
        return jnp.sum((x * factor) @ router * weights)

    assert float(ours(x, router)) != float(jnp.sum(router_logits(x, router) * weights))
    for a, b in zip(
        jax.tree.leaves(jax.value_and_grad(ours, argnums=(0, 1))(x, router)),
        jax.tree.leaves(jax.value_and_grad(plain, argnums=(0, 1))(x, router)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
