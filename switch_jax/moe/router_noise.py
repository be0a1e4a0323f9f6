"""The noise of the routing policies (App. C): a cheap hash, the same on every mesh."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class NoiseBits(NamedTuple):
    """Random bits from which `noise` computes a number for each element.

    Attributes:
      token: [B, L] uint32.
      feature: [B, D] uint32, the same in all rows of a group.
    """

    token: jax.Array
    feature: jax.Array


def noise_bits(
    key: jax.Array,
    layer_index: jax.Array,
    first_group: jax.Array | int,
    tokens_per_group: int,
    shape: tuple[int, ...],
) -> NoiseBits:
    """Random bits for the tokens and the features of each group.

    Args:
      key: with the same key a group gets the same bits on any mesh.
      layer_index: integer scalar; layers have different bits.
      first_group: index, in the whole batch, of the group of the first row.
      tokens_per_group: S.
      shape: (B, L, D) of this device's tokens; a row lies within one group.
    """
    batch, length, dim = shape
    seeds = jax.random.key_data(key).astype(jnp.uint32).reshape(-1)
    layer_seed = _hash(seeds[-1] + layer_index.astype(jnp.uint32) * jnp.uint32(0x9E3779B9))
    # Each group counts its tokens and then its features. The counters are computed row by row from
    # positions alone: repeating or slicing the bits of a group would take further operations.
    row = jnp.arange(batch)[:, None]  # [B, 1]
    group = first_group + row * length // tokens_per_group  # [B, 1]
    position_in_group = row * length % tokens_per_group + jnp.arange(length)  # [B, L]

    def bits(position: jax.Array) -> jax.Array:
        counter = (group * (tokens_per_group + dim) + position).astype(jnp.uint32)
        return _hash(_hash(counter * jnp.uint32(0x9E3779B9) + seeds[0]) ^ layer_seed)

    return NoiseBits(
        token=bits(position_in_group),  # [B, L]
        feature=bits(tokens_per_group + jnp.arange(dim)),  # [B, D]
    )


def noise(bits: NoiseBits) -> jax.Array:
    """[B, L, D] float32, uniform in [-1, 1).

    The bits of token and feature are hashed together. A generator that draws bits for each element
    would cost a TPU a fifth of the whole layer, three times over: the noise is computed once in the
    forward pass and twice in the backward pass.
    """
    mixed = _hash(bits.token[:, :, None] ^ bits.feature[:, None, :])  # [B, L, D]
    # A float32 holds 24 bits exactly; the shift leaves the sign bit 0.
    return (mixed >> 8).astype(jnp.int32).astype(jnp.float32) * 2.0**-23 - 1


def gumbel(bits: NoiseBits) -> jax.Array:
    """[B, L, E] float32 of the standard Gumbel distribution, `bits` having E features.

    The expert with the highest sum of logit and Gumbel noise is a sample of the logits' softmax.
    """
    uniform = jnp.maximum((noise(bits) + 1) / 2, 2.0**-25)  # [B, L, E], in (0, 1)
    return -jnp.log(-jnp.log(uniform))  # [B, L, E]


def _hash(x: jax.Array) -> jax.Array:
    """MurmurHash3's finaliser without its last shift: `noise` uses the high bits only."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    return (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
