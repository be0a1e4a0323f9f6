"""What the experts of a layer are."""

import dataclasses
from typing import Annotated

from switch_jax.config.transformer import Size
from switch_jax.utils.fields import Checked, OneOf, Range, Rate, Use, With

# The sublayers with experts, in the order in which tokens pass them.
SUBLAYERS = {
    "feed_forward": ("feed_forward",),
    "attention": ("attention",),
    "both": ("attention", "feed_forward"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExpertsConfig(Checked):
    """How many experts a layer has, how large they are, and in which of its sublayers they are.

    Attributes:
      num_experts: E, the number of experts of every Switch layer; 0: a dense model.
      expert_mlp_dim: F, width of one expert; None = mlp_dim, so that the FLOPs are those of the
        dense model.
      shared_expert_mlp_dim: width of a dense layer beside the experts of each Switch layer, which
        all tokens go through; None: there is none. Experts in attention have none.
      expert_dropout_rate: dropout on the hidden activation inside experts (section 2.4); None =
        dropout_rate.
      expert_sublayers: which sublayers of a layer with experts are Switch layers: 'feed_forward',
        'attention' or 'both' (App. A, Table 10). In self-attention the experts make queries, keys
        and values; cross-attention has none.
    """

    num_experts: Annotated[int, Range(0, 2**20)] = 0
    expert_mlp_dim: Annotated[Size, Use.SHAPES] | None = None
    shared_expert_mlp_dim: (
        Annotated[Size, With("num_experts"), With("expert_sublayers", ("feed_forward", "both"))]
        | None
    ) = None
    expert_dropout_rate: Annotated[Rate, Use.TRAINING] | None = None
    expert_sublayers: Annotated[str, OneOf(*SUBLAYERS), With("num_experts")] = "feed_forward"

    @property
    def sublayers_with_experts(self) -> tuple[str, ...]:
        """Those of a layer with experts, in the order in which tokens pass them."""
        return SUBLAYERS[self.expert_sublayers] if self.num_experts else ()
