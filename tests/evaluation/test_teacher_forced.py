import math

import numpy as np

from switch_jax.evaluation.teacher_forced import summed
from switch_jax.train_step.cross_entropy import TokenSums


def test_sums_over_many_batches_lose_no_token():
    batches = [TokenSums(*np.float32([x, 0, 1, x])) for x in (2.0**24, 1.0, 1.0)]
    assert summed(batches) == TokenSums(2.0**24 + 2, 0.0, 3.0, 2.0**24 + 2)
    diverged = summed([TokenSums(np.inf, 0, 0, 1), TokenSums(-np.inf, 0, 0, 1)])
    assert math.isnan(diverged.cross_entropy) and diverged.tokens == 2
