"""TensorFlow's stateless random numbers in NumPy, for many seeds at a time; without TensorFlow.

`tf.random.stateless_uniform` takes a single seed. With thousands of short rows, each with a seed of
its own, the calls take longer than the numbers. The generator is Philox-4x32-10 (Salmon et al.
2011, https://doi.org/10.1145/2063384.2063405), which TensorFlow takes on CPUs.
"""

import numpy as np

_ROUNDS = 10
_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
_KEY_STEPS = np.array([0x9E3779B9, 0xBB67AE85], np.uint32)
_SEED_KEY = np.array([0x3EC8F720, 0x02461E29], np.uint32)  # with which TensorFlow mixes a seed


def uniform(seeds: np.ndarray, count: int) -> np.ndarray:
    """`tf.random.stateless_uniform([count], seed)` of seeds int64 [N, 2]: float32 [N, count]."""
    mantissas = _bits(seeds, count) & np.uint32(0x7FFFFF)
    return (mantissas | np.uint32(0x3F800000)).view(np.float32) - np.float32(1)


def split(seeds: np.ndarray, count: int) -> np.ndarray:
    """`tf.random.split(seed, count)` of each seed: int64 [N, 2] to int64 [N, count, 2]."""
    return _bits(seeds, 4 * count).view("<i8").reshape(len(seeds), count, 2)


def _bits(seeds: np.ndarray, count: int) -> np.ndarray:
    """uint32 [N, count] for seeds int64 [N, 2]."""
    mixed = _philox(np.ascontiguousarray(seeds, "<i8").view("<u4"), _SEED_KEY)  # [N, 4]
    blocks = -(-count // 4)
    counters = np.zeros((len(seeds), blocks, 4), np.uint32)
    counters[:, :, 0] = np.arange(blocks)
    counters[:, :, 2:] = mixed[:, None, 2:]
    numbers = _philox(counters, mixed[:, None, :2])  # [N, blocks, 4]
    return np.ascontiguousarray(numbers.reshape(len(seeds), 4 * blocks)[:, :count])


def _philox(counters: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Four numbers for each counter: uint32 [..., 4], and keys [..., 2], to uint32 [..., 4]."""
    a, b, c, d = (counters[..., i] for i in range(4))
    for _ in range(_ROUNDS):
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b = _high(second) ^ b ^ keys[..., 0], second.astype(np.uint32)
        c, d = _high(first) ^ d ^ keys[..., 1], first.astype(np.uint32)
        keys = keys + _KEY_STEPS
    return np.stack([a, b, c, d], -1)


def _high(product: np.ndarray) -> np.ndarray:
    return (product >> np.uint64(32)).astype(np.uint32)
