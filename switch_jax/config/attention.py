"""What attention is."""

import dataclasses
from typing import Annotated

from switch_jax.config.transformer import Size
from switch_jax.utils.errors import FieldError
from switch_jax.utils.fields import Checked, Count, Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionConfig(Checked):
    """The heads of self-attention and cross-attention, and T5's relative position bias.

    Attributes:
      head_dim: K, size of one attention head.
      num_heads: H.
      relative_position_buckets: how many biases a head of self-attention has, by the distance
        between two tokens. Half of them are for a distance each; the others for ranges of it.
      relative_position_max_distance: tokens at least so far apart share the last bucket.
    """

    head_dim: Size
    num_heads: Size
    relative_position_buckets: Annotated[int, Range(4, 2**20)] = 32
    relative_position_max_distance: Count = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        exact = self.relative_position_buckets // 2  # distances with a bucket of their own
        if self.relative_position_max_distance <= exact:
            raise FieldError(
                "relative_position_max_distance",
                f"= {self.relative_position_max_distance}: it must be above {exact}, half of "
                "relative_position_buckets",
            )
