"""One stack of a model's layers: the encoder or the decoder, as `ModelConfig.stacks` makes them."""

import dataclasses
from collections.abc import Mapping

from switch_jax.config.sparse_layers import Blocks, in_blocks


@dataclasses.dataclass(frozen=True)
class StackConfig:
    """What a stack is, apart from the sizes that all stacks of a model share.

    Attributes:
      name: 'encoder' or 'decoder', as its parameters, its arrays in a batch and its records are
        named.
      features: those of a task that it reads, one after the other: 'inputs', 'targets' or both. The
        last one it needs; the others it reads where an example has them.
      attends_to: the name of the stack whose output its cross-attention reads; None = it has no
        cross-attention.
      causal: whether a token sees no token to its right.
      num_layers: N.
      sparse_layers: the layers with experts, counted from 0.
      sublayers_with_experts: those of such a layer, in the order in which tokens pass them:
        'attention', 'feed_forward' or both.
      router_type: who chooses, see `ModelConfig.encoder_router_type`.
      group_size: most tokens that are routed together.
      group_size_field: the field of `ModelConfig` that sets it.
      train_expert_capacity_factor, eval_expert_capacity_factor: see `moe.expert_capacity`. Where
        experts choose, it is how many experts a token has on average, and the same in both.
    """

    name: str
    features: tuple[str, ...]
    attends_to: str | None
    causal: bool
    num_layers: int
    sparse_layers: tuple[int, ...]
    sublayers_with_experts: tuple[str, ...]
    router_type: str
    group_size: int
    group_size_field: str
    train_expert_capacity_factor: float
    eval_expert_capacity_factor: float

    def length(self, lengths: Mapping[str, int]) -> int:
        """The tokens of a row, padding included, by the lengths of the features that there are."""
        return sum(lengths.get(feature, 0) for feature in self.features)

    def capacity_factor(self, *, training: bool) -> float:
        """The capacity factor in training, or in evaluation."""
        return self.train_expert_capacity_factor if training else self.eval_expert_capacity_factor

    @property
    def group_size_macro(self) -> str:
        """The gin macro that sets the group size."""
        return self.group_size_field.upper()

    @property
    def blocks(self) -> list[Blocks]:
        """The blocks of its layers."""
        return in_blocks(self.num_layers, list(self.sparse_layers))

    def layers_at(self, blocks: str, place: str) -> range:
        """The layers of a parameter whose path in the stack begins so: 'blocks', 'layer_0'."""
        (found,) = (each for each in self.blocks if each.name == blocks)
        return found.layers_at(int(place.removeprefix("layer_")))

    @property
    def routers(self) -> list[tuple[int, str]]:
        """The layer and sublayer of each router, in the order of their statistics."""
        return [
            (layer, name) for layer in self.sparse_layers for name in self.sublayers_with_experts
        ]

    @property
    def input_tokens(self) -> str:
        """The array of a batch with the ids [B, L] that it reads."""
        return f"{self.name}_input_tokens"

    @property
    def segment_ids(self) -> str:
        """The array of a batch with the packed examples [B, L] of these tokens; 0 = padding."""
        return f"{self.name}_segment_ids"

    @property
    def target_tokens(self) -> str:
        """The array of a batch with the ids [B, L] that the last stack predicts."""
        return f"{self.name}_target_tokens"

    @property
    def loss_weights(self) -> str:
        """The array of a batch with the weights [B, L] of the target tokens in the loss."""
        return f"{self.name}_loss_weights"
