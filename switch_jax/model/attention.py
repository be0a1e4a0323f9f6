"""Multi-head attention, of tokens to each other and to another stack, and to a cache."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from switch_jax.config import ModelConfig
from switch_jax.config.stack import StackConfig
from switch_jax.kernels.attention_kernel import MASKED
from switch_jax.model import parameters
from switch_jax.model.dot_product_attention import dot_product_attention, in_groups
from switch_jax.model.fused_attention import fused_kernel, on_mesh
from switch_jax.model.heads import Heads, query_fan
from switch_jax.model.layer_context import LayerContext
from switch_jax.model.layers import project
from switch_jax.moe import RouterOutput, Tokens
from switch_jax.partitioning.mesh import gather_activations

KeysAndValues = tuple[jax.Array, jax.Array]


class Encoded(NamedTuple):
    """The output [B, M, D] of the stack that another attends to, and its segments [B, M].

    The output is None where its keys and values are cached.
    """

    x: jax.Array | None
    segments: jax.Array


class Projections(Heads):
    """The kernels [D, H * K] of multi-head attention; keys and values may have fewer heads.

    These are matrices, and not [D, H, K], so that a TPU lays them out well and Adafactor factors
    them correctly.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        dim, inner = config.embed_dim, config.num_heads * config.head_dim
        of_keys = dim, config.key_value_heads * config.head_dim
        scale = config.scale
        into, out = ("embed", "heads"), ("heads", "embed")
        query_variance = scale / query_fan(config, dim)
        self.query = parameters.truncated_normal(rngs, (dim, inner), into, query_variance)
        self.key = parameters.truncated_normal(rngs, of_keys, into, scale / dim)
        self.value = parameters.truncated_normal(rngs, of_keys, into, scale / dim)
        self.out = parameters.truncated_normal(rngs, (inner, dim), out, scale / inner)
        self.add_norms(config)

    def keys_and_values(self, x: jax.Array) -> KeysAndValues:
        """[..., D], whole -> keys and values, each [..., H * K]."""
        return project(x, self.key[...]), project(x, self.value[...])


class SelfAttention(Heads):
    """Each token attends to those of its own segment; a subclass makes queries, keys and values."""

    causal: bool
    out: nnx.Param

    def queries_keys_and_values(
        self, x: jax.Array, tokens: Tokens, context: LayerContext
    ) -> tuple[jax.Array, KeysAndValues, RouterOutput | None]:
        """[B, L, D] -> queries, keys and values, [B, L, H * K] each; RouterOutput or None.

        Queries and keys are not normalised yet, nor rotated.
        """
        raise NotImplementedError

    def __call__(
        self,
        x: jax.Array,
        tokens: Tokens,
        context: LayerContext,
        cached: KeysAndValues | None = None,
    ) -> tuple[jax.Array, KeysAndValues, RouterOutput | None]:
        """Attends from x to itself or, in decoding, to the tokens before it and to itself.

        Args:
          x: [B, L, D]; in decoding [B, beams, D], one new token of each beam.
          tokens: [B, L]. A token sees those of its own segment, and where the stack is causal
            none to its right.
          context: of the layer.
          cached: in decoding keys and values [B, beams, L, H * K], of which those before the
            position of the context are used.

        Returns the shape of x; keys and values of x, [B, L, H * K] each, with H as in `cached` that
        of keys; and what its router returns, if it has one. Keys have the rotation of their
        position.
        """
        q, (k, v), router = self.queries_keys_and_values(x, tokens, context)  # [B, L, H * K] each
        q = self.ready_queries(q, context.rotation)
        own = self.ready_keys(k, context.rotation), v
        if cached is None:
            bias, segments = context.position_bias, tokens.segments
            key = context.dropout.self_attention
            y = attend(self.config, q, *own, bias, segments, segments, causal=self.causal, key=key)
        else:
            y = attend_to_cache(self.config, q, own, cached, context)
        return project(y, self.out[...]), own, router


class DenseSelfAttention(SelfAttention, Projections):
    """Self-attention as in T5."""

    def __init__(self, config: ModelConfig, stack: StackConfig, rngs: nnx.Rngs) -> None:
        super().__init__(config, rngs)
        self.causal = stack.causal

    def queries_keys_and_values(
        self, x: jax.Array, tokens: Tokens, context: LayerContext
    ) -> tuple[jax.Array, KeysAndValues, None]:
        """As `SelfAttention.queries_keys_and_values`; there is no router."""
        x = gather_activations(x)
        return project(x, self.query[...]), self.keys_and_values(x), None


class CrossAttention(Projections):
    """The tokens of a stack attend to those of another one, wherever these stand."""

    def keys_and_values(self, x: jax.Array) -> KeysAndValues:
        """[..., D] -> keys, ready for scores, and values, each [..., H * K]."""
        k, v = super().keys_and_values(gather_activations(x))
        return self.ready_keys(k), v

    def __call__(
        self,
        x: jax.Array,
        tokens: Tokens,
        context: LayerContext,
        encoded: Encoded,
        cached: KeysAndValues | None = None,
    ) -> jax.Array:
        """[B, L, D] -> [B, L, D]; in decoding beams stand where queries do.

        A query sees the keys of its own segment. `cached`, in decoding, are the keys and values of
        the other stack's tokens, [B, M, H * K] each.
        """
        q = project(gather_activations(x), self.query[...])  # [B, L, H * K]
        if cached is None:
            assert encoded.x is not None
            cached = self.keys_and_values(encoded.x)
        q = self.ready_queries(q)
        k, v = cached  # [B, M, H * K] each
        y = attend(
            self.config,
            q,
            k,
            v,
            None,
            tokens.segments,
            encoded.segments,
            key=context.dropout.cross_attention,
            decode=context.decode,
        )  # [B, L, H * K]
        return project(y, self.out[...])  # [B, L, D]


def attend(
    config: ModelConfig,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array | None,
    query_segments: jax.Array,
    key_segments: jax.Array,
    *,
    causal: bool = False,
    key: jax.Array | None,
    decode: bool = False,
) -> jax.Array:
    """The weighted sums of the values: [B, L, H * K], twice [B, M, H * K] -> [B, L, H * K].

    With grouped queries the keys and values have fewer heads. A query sees the keys of its own
    segment (int32 [B, L], [B, M]), but no padding, segment 0.

    Args:
      config: the model's.
      q, k, v: queries, keys and values.
      bias: [H, 2 W] float32, as `LayerContext.position_bias`; W is at least M, too. None = none.
      query_segments, key_segments: see above.
      causal: a query sees no key to its right.
      key: for dropout on the attention weights; None = no dropout.
      decode: the queries are few, and no kernel is used.
    """
    rate = 0.0 if key is None else config.dropout_rate
    arrays = q, k, v, bias, query_segments, key_segments
    heads = config.num_heads
    is_plain = rate > 0 or decode
    if not is_plain and (kernel := fused_kernel(config, q, k, bias is not None)):
        return on_mesh(kernel)(*arrays, num_heads=heads, causal=causal)
    return dot_product_attention(
        *arrays, num_heads=heads, causal=causal, dropout_rate=rate, key=key
    )


def attend_to_cache(
    config: ModelConfig,
    q: jax.Array,
    own: KeysAndValues,
    cached: KeysAndValues,
    context: LayerContext,
) -> jax.Array:
    """The same for one new token of each beam: [B, beams, H * K] -> [B, beams, H * K].

    `own` are its key and value; `cached` [B, beams, L, H * K] those of the tokens before its
    position, from 0 to L - 1. With grouped queries these have fewer heads.
    """
    (k, v), (keys, values) = own, cached
    position, bias = context.position, context.position_bias  # scalar, [H, 2 W]
    assert position is not None
    batch, beams, length, _ = keys.shape
    h, heads = in_groups(config.num_heads, config.key_value_heads)
    k, v = (y.reshape(batch, beams, config.key_value_heads, -1) for y in (k, v))
    keys, values = (
        y.reshape(batch, beams, length, *k.shape[2:]) for y in (keys, values)
    )  # [B, beams, L, H, K]
    q = q.reshape(batch, beams, *heads, -1)  # [B, beams, H, K], or [B, beams, H, queries, K]
    cached_scores = jnp.einsum(
        f"bn{h}k,bnlhk->bn{h}l", q, keys, preferred_element_type=jnp.float32
    ).reshape(batch, beams, -1, length)  # [B, beams, H, L]
    own_score = jnp.einsum(f"bn{h}k,bnhk->bn{h}", q, k, preferred_element_type=jnp.float32).reshape(
        batch, beams, -1
    )  # [B, beams, H]
    if bias is not None:
        # Key 0 is at distance `position`; from each key to the next the distance falls by 1. So the
        # bias is read from right to left.
        width = bias.shape[1] // 2
        key_bias = jax.lax.dynamic_slice_in_dim(
            bias[:, ::-1], width - 1 - position, length, axis=1
        )  # [H, L]
        cached_scores, own_score = cached_scores + key_bias, own_score + bias[:, width]
    is_seen = jnp.arange(length) < position  # [L]
    if context.prompt is not None:  # its padding is not seen
        after = length - context.prompt.shape[1]
        is_token = jnp.pad(
            context.prompt != 0, ((0, 0), (0, after)), constant_values=True
        )  # [B, L]
        is_seen &= is_token[:, None, None]  # [B, 1, 1, L]
    cached_scores = jnp.where(is_seen, cached_scores, MASKED)
    scores = jnp.concatenate([cached_scores, own_score[..., None]], axis=-1)  # [B, beams, H, L + 1]
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
    weights = weights.reshape(*q.shape[:-1], -1)  # as q, with L + 1 in place of K
    y = jnp.einsum(f"bn{h}l,bnlhk->bn{h}k", weights[..., :-1], values)
    if len(heads) > 1:
        v = v[:, :, :, None]  # [B, beams, H, 1, K]
    return (y + weights[..., -1:] * v).reshape(batch, beams, -1)  # [B, beams, H * K]
