"""What a batch says of the tokens of a stack."""

from typing import NamedTuple

import jax


class Tokens(NamedTuple):
    """What the batch says of its tokens: [B, L], or [G, S] where they are in routing groups.

    It goes to every sublayer, and into `jax.shard_map` with the rows of the batch: what else a
    routing policy needs to know of a token is one more field.

    Attributes:
      ids: int32.
      segments: int32, the packed example that a token belongs to, counted from 1; 0 = padding or,
        in decoding, a beam that has ended.
    """

    ids: jax.Array
    segments: jax.Array

    @property
    def valid(self) -> jax.Array:
        """Bool of the same shape, False on padding."""
        return self.segments != 0

    def in_groups(self, groups: int, size: int) -> "Tokens":
        """[B, L] -> [G, S], the tokens of each routing group."""
        return Tokens(*(x.reshape(groups, size) for x in self))
