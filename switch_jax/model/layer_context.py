"""What a stack and its layers add to the tokens: random keys, the position bias, decoding."""

from typing import NamedTuple

import jax
from flax import struct

from switch_jax.model.heads import Rotation
from switch_jax.moe import LayerKey


class DropoutKeys(NamedTuple):
    """The random keys of a layer's dropout, within each sublayer and after it; None: no dropout."""

    self_attention: jax.Array | None = None
    after_self_attention: jax.Array | None = None
    cross_attention: jax.Array | None = None
    after_cross_attention: jax.Array | None = None
    feed_forward: jax.Array | None = None
    after_feed_forward: jax.Array | None = None


class LayerContext(struct.PyTreeNode):
    """What a stack makes for its layers, and each layer for its sublayers.

    Attributes:
      key: in training, what the layer's random numbers follow from; None elsewhere.
      dropout: the layer's own keys.
      position_bias: [H, 2 W] float32, added to the scores of self-attention by query-minus-key
        distance, from -W to W - 1. W is at least L, and on TPU a multiple of 128. None = nothing is
        added; see `RelativePositionBias`.
      rotation: of queries and keys in self-attention, where positions are rotary; None elsewhere.
      with_choices: whether routers return the choices of all tokens, too.
      position: in decoding, int32 scalar, where the new tokens of all beams stand; None elsewhere.
      prompt: in decoding after a prompt, and in the pass over the prompts before it, their segments
        [B, P] int32, 0 for padding at the left; None elsewhere.
    """

    key: LayerKey | None = None
    dropout: DropoutKeys = DropoutKeys()
    position_bias: jax.Array | None = None
    position: jax.Array | None = None
    prompt: jax.Array | None = None
    rotation: Rotation | None = None
    with_choices: bool = struct.field(pytree_node=False, default=False)

    @property
    def training(self) -> bool:
        """Whether there is dropout, noise in routers, and the capacity factor of training."""
        return self.key is not None

    @property
    def decode(self) -> bool:
        """Whether the tokens are [B, beams], the new ones of beams."""
        return self.position is not None

    @property
    def generates(self) -> bool:
        """Whether it decodes, or reads prompts: keys are kept, and no expert drops a token."""
        return self.decode or self.prompt is not None

    def in_layer(self, number: jax.Array | int) -> "LayerContext":
        """The context of the layer with this number in the stack."""
        return self if self.key is None else self.replace(key=self.key._replace(layer=number))

    def with_dropout_keys(self, rate: float) -> "LayerContext":
        """The same with the keys of the layer, if anything is dropped at this rate."""
        # Only where they are used: making keys takes dozens of tiny operations.
        if self.key is None or rate == 0:
            return self
        layer_key = jax.random.fold_in(self.key.stack_key, self.key.layer)
        keys = jax.random.split(layer_key, len(DropoutKeys._fields))
        return self.replace(dropout=DropoutKeys(*keys))
