"""T5's relative position bias."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from switch_jax.config import ModelConfig
from switch_jax.kernels.tiles import round_up_to_lanes
from switch_jax.model import parameters


class RelativePositionBias(nnx.Module):
    """T5's relative positions: a number for each head and bucket of distances, once a stack."""

    def __init__(self, config: ModelConfig, bidirectional: bool, rngs: nnx.Rngs) -> None:
        shape = (config.relative_position_buckets, config.num_heads)
        axes = ("relpos_buckets", "heads")
        self.embedding = parameters.normal(rngs, shape, axes, std=config.embed_dim**-0.5)
        self.bidirectional = bidirectional
        self.max_distance = config.relative_position_max_distance

    def __call__(self, length: int) -> jax.Array:
        """[H, 2 W] float32 bias by query-minus-key distance, from -W to W - 1.

        W is the length rounded up to whole lanes of a TPU, as the attention kernel expects.
        """
        buckets = self.embedding.shape[0]
        width = round_up_to_lanes(length)
        bucket = relative_position_bucket(
            jnp.arange(width, -width, -1), buckets, self.max_distance, self.bidirectional
        )  # [2 W]
        # A matrix product, since the gradient of a look-up would be a scatter.
        one_hot = jax.nn.one_hot(bucket, buckets, dtype=jnp.float32)  # [2 W, buckets]
        # HIGHEST: a TPU would otherwise round the embedding to bfloat16.
        return jnp.einsum(
            "dn,nh->hd", one_hot, self.embedding[...], precision=jax.lax.Precision.HIGHEST
        )  # [H, 2 W]


def relative_position_bucket(
    distance: jax.Array, buckets: int, max_distance: int, bidirectional: bool
) -> jax.Array:
    """T5's buckets, int32: half of them for one distance each, the others logarithmically wider.

    `distance` is key minus query position; all from `max_distance` on share the last bucket. If
    `bidirectional`, half of the buckets are for keys to the right, which otherwise (masked) share
    bucket 0.
    """
    offset = jnp.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        offset = jnp.where(distance > 0, buckets, 0)
        distance = jnp.abs(distance)
    else:
        distance = jnp.maximum(-distance, 0)
    exact = buckets // 2
    ratio = jnp.maximum(distance, 1).astype(jnp.float32) / exact
    wide = exact + (jnp.log(ratio) / math.log(max_distance / exact) * (buckets - exact)).astype(
        jnp.int32
    )
    return offset + jnp.where(distance < exact, distance, jnp.minimum(wide, buckets - 1))
