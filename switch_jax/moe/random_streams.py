"""The random numbers of Switch layers: named streams, the same on every mesh."""

import enum
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Stream(enum.IntEnum):
    """What random numbers are for; streams are independent of each other."""

    ROUTER_INPUT = 0  # jitter of the router's input, or dropout of it
    SAMPLED_EXPERT = 1
    SECOND_EXPERT = 2
    EXPERT_DROPOUT = 3


class NoiseBits(NamedTuple):
    """Random bits, uint32, that `noise` combines: of tokens [B, L], and of features [B, D]."""

    token: jax.Array
    feature: jax.Array


class LayerKey(NamedTuple):
    """What the random numbers of one layer follow from in a step of training.

    Attributes:
      stack_key: the key of the step and stack.
      layer: int32 scalar, the number of the layer in its stack.
    """

    stack_key: jax.Array
    layer: jax.Array | int = 0


class RouterKey(NamedTuple):
    """What the random numbers of one Switch layer in one step follow from, on any mesh.

    Attributes:
      stack_key: the key of the step and stack.
      router_index: int32 scalar, the layer's number among the routers of the stack.
      first_group: index, in the whole batch, of the first group of this device.
      tokens_per_group: S.
    """

    stack_key: jax.Array
    router_index: jax.Array | int
    first_group: jax.Array | int
    tokens_per_group: int

    def key(self, stream: Stream) -> jax.Array:
        """A key for the layer's numbers of a stream, none of those that the model's layers fold.

        Not for `ROUTER_INPUT`, whose key would be that of a layer's dropout.
        """
        return jax.random.fold_in(self.stack_key, self._number(stream))

    def bits(self, stream: Stream, shape: tuple[int, ...]) -> NoiseBits:
        """Random bits for tokens and features of each group; `shape`: (B, L, D) of this device."""
        batch, length, dim = shape
        seeds = jax.random.key_data(self.stack_key).astype(jnp.uint32).reshape(-1)
        number = self._number(stream).astype(jnp.uint32)
        layer_seed = _hash(seeds[-1] + number * jnp.uint32(0x9E3779B9))
        # Each group counts its tokens and then its features. The counters are computed row by row
        # from positions alone: repeating or slicing the bits of a group would take further
        # operations.
        tokens = self.tokens_per_group
        row = jnp.arange(batch)[:, None]  # [B, 1]
        group = self.first_group + row * length // tokens  # [B, 1]
        position_in_group = row * length % tokens + jnp.arange(length)  # [B, L]

        def bits(position: jax.Array) -> jax.Array:
            counter = (group * (tokens + dim) + position).astype(jnp.uint32)
            return _hash(_hash(counter * jnp.uint32(0x9E3779B9) + seeds[0]) ^ layer_seed)

        return NoiseBits(
            token=bits(position_in_group),  # [B, L]
            feature=bits(tokens + jnp.arange(dim)),  # [B, D]
        )

    def _number(self, stream: Stream) -> jax.Array:
        """Of a stream of one router."""
        return self.router_index + jnp.int32(stream << 20)


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
