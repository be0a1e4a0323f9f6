"""The router's logits: a float32 product with, in training, a noisy copy of the tokens."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class NoiseWords(NamedTuple):
    """Random words that the noise of each element is mixed from.

    Attributes:
      token: [B, L] uint32.
      feature: [B, D] uint32, the same in all rows of a group.
    """

    token: Any
    feature: Any


def router_logits(
    x: jax.Array, router: jax.Array, jitter: float = 0.0, words: NoiseWords | None = None
) -> jax.Array:
    """Logits in float32 whatever the dtype of x (section 2.4).

    Args:
      x: [B, L, D].
      router: [D, E] float32.
      jitter: epsilon of the noise uniform(1 - eps, 1 + eps) that x is multiplied by here (App. C).
      words: what the noise is made of; None = none.

    Returns:
      [B, L, E] float32.
    """
    return _project(x, words if jitter else None, router, jitter)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _project(x: jax.Array, words: NoiseWords | None, router: jax.Array, jitter: float) -> jax.Array:
    """Rounding must not decide which expert a token gets, so HIGH: three products in bfloat16.

    A TPU would round float32 operands to bfloat16 and multiply once. The gradients take that.
    """
    x = _jittered(x, words, jitter)
    return jnp.einsum("bld,de->ble", x, router, precision=lax.Precision.HIGH)


def _project_fwd(x, words, router, jitter):
    return _project(x, words, router, jitter), (x, words, router)


def _project_bwd(jitter, residuals, cotangent):
    # Behind a barrier: else the float32 copies of x would be kept from the forward pass, and read
    # again. To make them anew within the products costs less.
    x, words, router = lax.optimization_barrier(residuals)
    by_x = jnp.einsum("ble,de->bld", cotangent, router)
    if words is not None:
        by_x = by_x * (1 + jitter * noise(words))
    by_router = jnp.einsum("bld,ble->de", _jittered(x, words, jitter), cotangent)
    return by_x.astype(x.dtype), None, by_router


_project.defvjp(_project_fwd, _project_bwd)


def _jittered(x: jax.Array, words: NoiseWords | None, jitter: float) -> jax.Array:
    wide = x.astype(jnp.float32)
    return wide if words is None else wide * (1 + jitter * noise(words))


def noise_words(
    key: jax.Array,
    number: jax.Array,
    first_group: jax.Array | int,
    tokens_per_group: int,
    shape: tuple[int, ...],
) -> NoiseWords:
    """Random words for the tokens and features of each group.

    Args:
      key: one key gives a group the same words on any mesh.
      number: of the layer, integer scalar.
      first_group: number, in the whole batch, of the group of the first row.
      tokens_per_group: S.
      shape: (B, L, D) of this device's tokens; a row of L is within a group.
    """
    batch, length, dim = shape
    seeds = jax.random.key_data(key).astype(jnp.uint32).reshape(-1)
    layer = _mix(seeds[-1] + number.astype(jnp.uint32) * jnp.uint32(0x9E3779B9))
    # Counters of the tokens, then of the features, of each group; row by row, from positions
    # alone: to repeat or to cut what was made for a group would cost operations of their own.
    row = jnp.arange(batch)[:, None]
    group = first_group + row * length // tokens_per_group
    place = row * length % tokens_per_group + jnp.arange(length)

    def words(place: jax.Array) -> jax.Array:
        counters = (group * (tokens_per_group + dim) + place).astype(jnp.uint32)
        return _mix(_mix(counters * jnp.uint32(0x9E3779B9) + seeds[0]) ^ layer)

    return NoiseWords(token=words(place), feature=words(tokens_per_group + jnp.arange(dim)))


def noise(words: NoiseWords) -> jax.Array:
    """[B, L, D] float32 uniform in [-1, 1).

    The words of token and feature are hashed together: a generator that makes a word for each
    element costs a TPU a fifth of the whole layer, and is run three times.
    """
    mixed = _mix(words.token[:, :, None] ^ words.feature[:, None, :])
    # 24 bits, as many as a float32 holds, and none of them a sign.
    return (mixed >> 8).astype(jnp.int32).astype(jnp.float32) * 2.0**-23 - 1


def _mix(word: jax.Array) -> jax.Array:
    """A hash of 32 bits; the multipliers and shifts are those of MurmurHash3's finaliser."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    return (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
