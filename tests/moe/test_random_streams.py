import functools

import jax
import jax.numpy as jnp
import numpy as np

from switch_jax.moe.random_streams import RouterKey, Stream, noise


@functools.partial(jax.jit, static_argnums=(1, 2), static_argnames="stream")
def _noise(first_group, tokens, shape, router_index=0, stream=Stream.ROUTER_INPUT):
    key = RouterKey(jax.random.key(3), jnp.int32(router_index), first_group, tokens)
    return noise(key.bits(stream, shape))


def test_noise_is_uniform_and_unrelated_between_groups_tokens_and_features():
    values = np.asarray(_noise(0, 512, (2, 512, 256)), np.float64)
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


def test_noise_depends_on_the_index_of_the_group_alone():
    """However many groups a device has, and however many rows a group is."""
    both = _noise(4, 12, (2, 12, 8))
    np.testing.assert_array_equal(_noise(5, 12, (1, 12, 8))[0], both[1])
    in_rows = _noise(4, 12, (6, 4, 8))
    np.testing.assert_array_equal(np.asarray(in_rows).reshape(2, 12, 8), both)


def test_routers_and_streams_have_noise_of_their_own():
    numbers = [
        np.asarray(_noise(0, 64, (1, 64, 64), n, stream=stream)).ravel()
        for stream in Stream
        for n in (0, 1)
    ]
    others = np.corrcoef(numbers)[np.triu_indices(len(numbers), 1)]
    assert abs(others).max() < 0.07  # 4 deviations of 1 / 64
