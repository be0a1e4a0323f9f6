"""What happens to each head of queries and keys before scores: a norm, and rotary positions."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from switch_jax.config import ModelConfig
from switch_jax.model import parameters
from switch_jax.model.layers import rms_norm


class Rotation(NamedTuple):
    """The cosines and sines, [L, K / 2] float32, of the angles by position and pair of a head."""

    cos: jax.Array
    sin: jax.Array

    @classmethod
    def of(cls, config: ModelConfig, positions: jax.Array) -> "Rotation":
        """By positions [L] in the row."""
        exponents = np.arange(0, config.head_dim, 2) / config.head_dim  # [K / 2]
        frequencies = (config.rotary_base**-exponents).astype(np.float32)  # [K / 2]
        angles = positions[:, None].astype(jnp.float32) * frequencies  # [L, K / 2]
        return cls(jnp.cos(angles), jnp.sin(angles))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Rotates pairs of elements, i and i + K / 2: [..., L, H, K] float32 -> the same."""
        first, second = jnp.split(x, 2, axis=-1)  # [..., L, H, K / 2]
        cos, sin = self.cos[:, None], self.sin[:, None]  # [L, 1, K / 2]
        return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


class HeadNorm(nnx.Module):
    """RMSNorm of each head, with a weight that they share."""

    def __init__(self, config: ModelConfig, initial: float) -> None:
        self.scale = parameters.constant((config.head_dim,), ("head",), initial)
        self.epsilon = config.norm_epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., K] -> [..., K] of the same dtype."""
        return rms_norm(x, self.scale[...], self.epsilon)


class Heads(nnx.Module):
    """Makes what scores are products of; base of all kinds of attention.

    The factor 1 / sqrt(K) of dot-product attention is where scores are not divided by sqrt(K), as
    in T5, part of the initialisation: of the queries' projection, and of their norm.
    """

    query_norm: HeadNorm | None = None
    key_norm: HeadNorm | None = None
    config: ModelConfig

    def add_norms(self, config: ModelConfig) -> None:
        """Adds the norms, if the config has them, and keeps the config."""
        self.config = config
        if config.qk_norm:
            divided = config.has_rotary_positions
            self.query_norm = HeadNorm(config, 1.0 if divided else config.head_dim**-0.5)
            self.key_norm = HeadNorm(config, 1.0)

    def ready_queries(self, x: jax.Array, rotation: Rotation | None = None) -> jax.Array:
        """[..., L, H * K] -> the same: normalised, rotated and, with rotary positions, divided."""
        divisor = self.config.head_dim**0.5 if self.config.has_rotary_positions else 1.0
        return self._by_head(x, self.query_norm, rotation, divisor)

    def ready_keys(self, x: jax.Array, rotation: Rotation | None = None) -> jax.Array:
        """[..., L, H * K] -> the same: normalised and rotated."""
        return self._by_head(x, self.key_norm, rotation)

    def _by_head(
        self,
        x: jax.Array,
        norm: HeadNorm | None,
        rotation: Rotation | None,
        divisor: float = 1.0,
    ) -> jax.Array:
        if norm is None and rotation is None and divisor == 1:
            return x
        heads = x.reshape(*x.shape[:-1], -1, self.config.head_dim)  # [..., L, H, K]
        if norm is not None:
            heads = norm(heads)
        heads = heads.astype(jnp.float32) / divisor
        if rotation is not None:
            heads = rotation(heads)
        return heads.astype(x.dtype).reshape(x.shape)


def query_fan(config: ModelConfig, fan: int) -> int:
    """What the initial variance of a queries' projection from `fan` features is divided by."""
    return fan if config.has_rotary_positions else fan * config.head_dim
