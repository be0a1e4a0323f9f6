"""Multi-head attention as T5 has it: no scaling, and relative positions as an additive bias."""

import jax
import jax.numpy as jnp
from flax import nnx

from switch_jax.model import parameters
from switch_jax.model.config import ModelConfig
from switch_jax.model.layers import dropout


class Attention(nnx.Module):
    """Kernels are [D, H * K] matrices: what a TPU lays out well and Adafactor factors rightly."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        dim, inner = config.d_model, config.num_heads * config.d_kv
        scale = config.init_scale
        into, out = ("embed", "heads"), ("heads", "embed")
        # The 1 / sqrt(K) of dot-product attention is in the query's initialisation.
        query_variance = scale / (dim * config.d_kv)
        self.query = parameters.truncated_normal(rngs, (dim, inner), into, query_variance)
        self.key = parameters.truncated_normal(rngs, (dim, inner), into, scale / dim)
        self.value = parameters.truncated_normal(rngs, (dim, inner), into, scale / dim)
        self.out = parameters.truncated_normal(rngs, (inner, dim), out, scale / inner)
        self.config = config

    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array,
        mask: jax.Array,
        bias: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Attends from x to memory.

        Args:
          x: [B, L, D] queries.
          memory: [B, M, D] keys and values; x itself in self-attention.
          mask: [B, L, M] bool, True where the query may look.
          bias: [H, L, M] float32, added to the scores.
          key: for dropout on the attention weights; None = none.

        Returns:
          [B, L, D].
        """
        heads = (self.config.num_heads, self.config.d_kv)
        q = (x @ self.query[...].astype(x.dtype)).reshape(*x.shape[:2], *heads)
        k = (memory @ self.key[...].astype(x.dtype)).reshape(*memory.shape[:2], *heads)
        v = (memory @ self.value[...].astype(x.dtype)).reshape(*memory.shape[:2], *heads)

        scores = jnp.einsum("blhk,bmhk->bhlm", q, k, preferred_element_type=jnp.float32)
        if bias is not None:
            scores = scores + bias
        # A large finite number: a padding row sees nothing at all, and must not become NaN.
        scores = jnp.where(mask[:, None], scores, -1e9)
        weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
        weights = dropout(weights, self.config.dropout_rate, key)
        mixed = jnp.einsum("bhlm,bmhk->blhk", weights, v)
        return mixed.reshape(*x.shape[:2], -1) @ self.out[...].astype(x.dtype)


def segment_mask(query_segments: jax.Array, key_segments: jax.Array) -> jax.Array:
    """[B, L], [B, M] segments (0 = padding) -> [B, L, M] bool: the same one, not padding."""
    same = query_segments[:, :, None] == key_segments[:, None, :]
    return same & (key_segments != 0)[:, None, :]


def causal_mask(length: int) -> jax.Array:
    """[1, L, L] bool: the key is not to the right of the query."""
    position = jnp.arange(length)
    return (position[:, None] >= position[None, :])[None]
