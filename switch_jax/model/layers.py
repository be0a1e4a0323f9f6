"""The small parts: RMSNorm, dropout, token embedding, relative position bias."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from switch_jax.model import parameters
from switch_jax.model.config import ModelConfig


class RMSNorm(nnx.Module):
    """T5's layer norm: no mean, no bias; the variance is float32."""

    def __init__(self, config: ModelConfig) -> None:
        self.scale = parameters.ones((config.d_model,), ("embed",))
        self.epsilon = config.norm_epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D] -> [..., D] of the same dtype."""
        return _rms_norm(x, self.scale[...], self.epsilon)


def _normalise(x: jax.Array, scale: jax.Array, epsilon: float) -> jax.Array:
    wide = x.astype(jnp.float32)
    variance = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(variance + epsilon) * scale).astype(x.dtype)


def _normalise_backward(epsilon, saved, dy):
    return jax.vjp(lambda x, scale: _normalise(x, scale, epsilon), *saved)[1](dy)


# Left to itself, differentiation would save several float32 copies of x for the backward pass.
_rms_norm = jax.custom_vjp(_normalise, nondiff_argnums=(2,))
_rms_norm.defvjp(
    lambda x, scale, epsilon: (_normalise(x, scale, epsilon), (x, scale)), _normalise_backward
)


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zeroes elements with probability `rate` and scales the rest; nothing where key is None."""
    if key is None or rate == 0:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


class Embedding(nnx.Module):
    """Token embedding [V, D], used for the logits too where they are tied."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        shape = (config.vocab_size, config.d_model)
        self.embedding = parameters.normal(rngs, shape, ("vocab", "embed"), std=1.0)
        self.dtype = jnp.dtype(config.dtype)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[B, L] ids -> [B, L, D]."""
        return jnp.take(self.embedding[...].astype(self.dtype), tokens, axis=0)

    def logits(self, x: jax.Array) -> jax.Array:
        """[B, L, D] -> [B, L, V] float32, x scaled by D^-0.5 (T5 1.0)."""
        x = x * x.shape[-1] ** -0.5
        table = self.embedding[...].astype(self.dtype)
        return jnp.einsum("bld,vd->blv", x, table, preferred_element_type=jnp.float32)


class RelativePositionBias(nnx.Module):
    """T5's position information: one number a head and bucket of key-minus-query distances.

    One for each stack, shared by its layers.
    """

    def __init__(self, config: ModelConfig, bidirectional: bool, rngs: nnx.Rngs) -> None:
        shape = (config.relative_position_buckets, config.num_heads)
        axes = ("relpos_buckets", "heads")
        self.embedding = parameters.normal(rngs, shape, axes, std=config.d_model**-0.5)
        self.bidirectional = bidirectional
        self.max_distance = config.relative_position_max_distance

    def __call__(self, length: int) -> jax.Array:
        """[H, 2 L - 1] float32 bias by key-minus-query distance, from 1 - L to L - 1."""
        buckets = self.embedding.shape[0]
        bucket = relative_position_bucket(
            jnp.arange(1 - length, length), buckets, self.max_distance, self.bidirectional
        )
        # A matrix product, since the gradient of a look-up would be a scatter.
        one_hot = jax.nn.one_hot(bucket, buckets, dtype=jnp.float32)
        # HIGHEST: a TPU would otherwise round the embedding to bfloat16.
        return jnp.einsum(
            "dn,nh->hd", one_hot, self.embedding[...], precision=jax.lax.Precision.HIGHEST
        )


def relative_position_bucket(
    distance: jax.Array, buckets: int, max_distance: int, bidirectional: bool
) -> jax.Array:
    """T5's buckets: one a distance up to a half, then logarithmically wider up to `max_distance`.

    Args:
      distance: integers, key position minus query position.
      buckets: their number; bidirectional keeps one half for the keys to the right.
      max_distance: everything from here on shares the last bucket.
      bidirectional: False puts all keys to the right into bucket 0 (they are masked).

    Returns:
      int32 bucket numbers, the shape of `distance`.
    """
    offset = jnp.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        offset = jnp.where(distance > 0, buckets, 0)
        distance = jnp.abs(distance)
    else:
        distance = jnp.maximum(-distance, 0)
    exact = buckets // 2
    ratio = jnp.maximum(distance, 1).astype(jnp.float32) / exact
    wide = exact + (jnp.log(ratio) / math.log(max_distance / exact) * (buckets - exact)).astype(
        jnp.int32
    )
    return offset + jnp.where(distance < exact, distance, jnp.minimum(wide, buckets - 1))
