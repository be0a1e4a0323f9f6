import math

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
