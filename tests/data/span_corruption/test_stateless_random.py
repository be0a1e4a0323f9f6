"""The numbers are TensorFlow's, bit for bit."""

import numpy as np
import pytest
import tensorflow as tf

from switch_jax.data.span_corruption import stateless_random

EDGES = np.array([[0, 0], [1, 2], [2**63 - 1, -(2**63)], [-1, 2**32]], np.int64)


@pytest.mark.parametrize("count", [0, 1, 4, 447])  # Philox makes four at a time
def test_uniform_numbers(count):
    expected = [tf.random.stateless_uniform([count], tf.constant(seed)) for seed in EDGES]
    found = stateless_random.uniform(EDGES, count)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.stack(expected))


def test_split_seeds():
    expected = [tf.random.split(tf.constant(seed), 6) for seed in EDGES]
    found = stateless_random.split(EDGES, 6)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, np.stack(expected))
