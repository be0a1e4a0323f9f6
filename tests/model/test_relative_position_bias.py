import math

import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.model.relative_position_bias import relative_position_bucket


def _t5_bucket(distance, buckets, max_distance, bidirectional):
    """T5's formula for one distance of key minus query (Raffel et al. 2020, section 2.1)."""
    first = 0
    if bidirectional:
        buckets //= 2
        first = buckets if distance > 0 else 0
        n = abs(distance)
    else:
        n = max(-distance, 0)
    exact = buckets // 2
    if n < exact:
        return first + n
    share = math.log(n / exact) / math.log(max_distance / exact)
    return first + min(exact + int(share * (buckets - exact) + 1e-9), buckets - 1)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (8, 20)])
def test_relative_position_bucket_is_t5s_formula(buckets, max_distance, bidirectional):
    distance = np.arange(-200, 201)
    expected = [_t5_bucket(int(d), buckets, max_distance, bidirectional) for d in distance]
    got = relative_position_bucket(distance, buckets, max_distance, bidirectional)
    np.testing.assert_array_equal(got, expected)


def test_relative_position_bucket_by_hand():
    # 16 buckets a side, 8 exact; from 8 on, 8 buckets for the 4 doublings to 128: 2 a doubling.
    distance = jnp.array([0, -1, -7, -8, -11, -12, -16, -32, -64, -127, -500, 1, 7, 8, 16, 127])
    both = [0, 1, 7, 8, 8, 9, 10, 12, 14, 15, 15, 17, 23, 24, 26, 31]
    np.testing.assert_array_equal(relative_position_bucket(distance, 32, 128, True), both)
    # 32 buckets to the left, 16 exact; 16 for 3 doublings: the first ends at 16 x 2^(3/16) = 18.2.
    distance = jnp.array([0, -1, -15, -16, -18, -19, -127, -500, 1, 100])
    left = [0, 1, 15, 16, 16, 17, 31, 31, 0, 0]
    np.testing.assert_array_equal(relative_position_bucket(distance, 32, 128, False), left)
