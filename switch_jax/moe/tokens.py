"""The tokens of a stack, as every layer and every router gets them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import PartitionSpec

from switch_jax.partitioning.mesh import BATCH


class DropoutKeys(NamedTuple):
    """The random keys of a layer's dropout, within each sublayer and after it; None: no dropout."""

    self_attention: jax.Array | None = None
    after_self_attention: jax.Array | None = None
    cross_attention: jax.Array | None = None
    after_cross_attention: jax.Array | None = None
    feed_forward: jax.Array | None = None
    after_feed_forward: jax.Array | None = None


class Tokens(struct.PyTreeNode):
    """What layers and routers know of a batch's tokens, besides their activations.

    `Transformer` makes one for each stack. It goes whole to every sublayer and, but for the bias,
    into `jax.shard_map`: what else a layer or a routing policy needs is one more field.

    Attributes:
      ids: [B, L] int32.
      segments: [B, L] int32, the packed example that a token belongs to, counted from 1; 0 =
        padding or, in decoding, a beam that has ended.
      positions: [L] int32, where tokens stand in their row; [1] where all stand at the same place.
      key: what all random numbers of the stack in this step follow from. None = evaluation: no
        dropout, no noise in routers, and the capacity factor of evaluation.
      layer: int32 scalar, the number of the layer in its stack; it makes the layer's noise its own.
      dropout: the layer's own keys.
      position_bias: [H, 2 W] float32, added to the scores of self-attention by query-minus-key
        distance, from -W to W - 1. W is at least L, and on TPU a multiple of 128. `Stack` sets it,
        see `RelativePositionBias`; None = nothing is added.
      decoding: the tokens are the new ones of beams, [B, beams], and no expert drops any.
    """

    ids: jax.Array
    segments: jax.Array
    positions: jax.Array
    key: jax.Array | None = None
    layer: jax.Array | int = 0
    dropout: DropoutKeys = DropoutKeys()
    position_bias: jax.Array | None = None
    decoding: bool = struct.field(pytree_node=False, default=False)

    @property
    def valid(self) -> jax.Array:
        """[B, L] bool, False on padding."""
        return self.segments != 0

    def with_dropout_keys(self, rate: float) -> "Tokens":
        """With the keys of the layer, if anything is dropped at this rate."""
        # Only where they are used: making keys takes dozens of tiny operations.
        if self.key is None or rate == 0:
            return self
        keys = jax.random.split(jax.random.fold_in(self.key, self.layer), len(DropoutKeys._fields))
        return self.replace(dropout=DropoutKeys(*keys))

    def in_groups(self, groups: int, size: int) -> "Tokens":
        """[B, L] -> [G, S], the tokens of each routing group."""
        ids, segments = (x.reshape(groups, size) for x in (self.ids, self.segments))  # [G, S] each
        return self.replace(ids=ids, segments=segments)

    def partition_specs(self) -> "Tokens":
        """The rows over the batch axes of the mesh; the rest is the same on every device."""
        rows, whole = PartitionSpec(BATCH), PartitionSpec()
        return self.replace(
            ids=rows, segments=rows, positions=whole, key=whole, layer=whole, dropout=whole
        )


def tokens_of(ids: jax.Array, segments: jax.Array, key: jax.Array | None = None) -> Tokens:
    """Those of whole rows, [B, L]; in training with a key."""
    return Tokens(ids, segments, jnp.arange(ids.shape[1], dtype=jnp.int32), key)
