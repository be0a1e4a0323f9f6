"""What attention is."""

import dataclasses
from typing import Annotated

from switch_jax.config.transformer import Size
from switch_jax.utils.errors import FieldError
from switch_jax.utils.fields import Checked, Count, OneOf, Range, With


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionConfig(Checked):
    """The heads of self-attention and cross-attention, and how they know positions.

    Attributes:
      head_dim: K, size of one attention head.
      num_heads: H, heads of queries.
      num_key_value_heads: heads of keys and values. The heads of queries are divided into so many
        groups, and those of a group share one (Ainslie et al. 2023, arXiv 2305.13245); None =
        num_heads.
      qk_norm: RMSNorm of each head of queries and keys, with a weight of size K that heads share,
        before positions are added, as in Qwen3.
      positions: what self-attention knows of positions; cross-attention knows nothing.
        'relative_bias': T5's, a number for each head and range of distances. 'rotary': queries and
        keys are rotated by their positions (Su et al. 2021, arXiv 2104.09864); element i of a head
        goes with element i + K / 2, as in Hugging Face's models, and all scores, those of
        cross-attention too, are divided by the square root of K.
      rotary_base: the angle of pair i of a head is position * rotary_base^(-2 i / K).
      relative_position_buckets: how many biases a head of self-attention has, by the distance
        between two tokens. Half of them are for a distance each; the others for ranges of it.
      relative_position_max_distance: tokens at least so far apart share the last bucket.
    """

    head_dim: Size
    num_heads: Size
    num_key_value_heads: Size | None = None
    qk_norm: bool = False
    positions: Annotated[str, OneOf("relative_bias", "rotary")] = "relative_bias"
    rotary_base: Annotated[
        float, Range(1, 10**9, excluded_end="least"), With("positions", ("rotary",))
    ] = 10_000.0
    relative_position_buckets: Annotated[
        int, Range(4, 2**20), With("positions", ("relative_bias",))
    ] = 32
    relative_position_max_distance: Annotated[Count, With("positions", ("relative_bias",))] = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        exact = self.relative_position_buckets // 2  # distances with a bucket of their own
        if self.relative_position_max_distance <= exact:
            raise FieldError(
                "relative_position_max_distance",
                f"= {self.relative_position_max_distance}: it must be above {exact}, half of "
                "relative_position_buckets",
            )
        if self.num_heads % self.key_value_heads:
            raise FieldError(
                "num_key_value_heads",
                f"= {self.num_key_value_heads} does not divide NUM_HEADS = {self.num_heads}",
            )
        if self.has_rotary_positions and self.head_dim % 2:
            raise FieldError(
                "head_dim", f"= {self.head_dim}: it must be even with POSITIONS = 'rotary'"
            )

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_key_value_heads or self.num_heads

    @property
    def has_rotary_positions(self) -> bool:
        """Whether queries and keys are rotated; then scores are divided by the root of K."""
        return self.positions == "rotary"
