"""Layers, blocks of layers, and the stack that is scanned over its blocks."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from switch_jax.model.attention import Attention
from switch_jax.model.config import ModelConfig
from switch_jax.model.feed_forward import DenseFeedForward, SwitchFeedForward
from switch_jax.model.layers import RelativePositionBias, RMSNorm, dropout
from switch_jax.model.parameters import for_computing
from switch_jax.model.remat import rematerialise
from switch_jax.moe.layer import RouterStatistics
from switch_jax.partitioning.mesh import constrain_batch

KEYS = 6  # that a layer takes: for its sublayers, and for dropout after each


class Layer(nnx.Module):
    """Self-attention, in the decoder cross-attention, and a feed-forward layer; pre-norm."""

    def __init__(self, config: ModelConfig, decoder: bool, sparse: bool, rngs: nnx.Rngs) -> None:
        self.self_attention_norm = RMSNorm(config)
        self.self_attention = Attention(config, rngs)
        if decoder:
            self.cross_attention_norm = RMSNorm(config)
            self.cross_attention = Attention(config, rngs)
        self.feed_forward_norm = RMSNorm(config)
        self.feed_forward = (SwitchFeedForward if sparse else DenseFeedForward)(config, rngs)
        self.rate = config.dropout_rate
        self.decoder = decoder

    def __call__(
        self,
        x: jax.Array,
        segments: jax.Array,
        bias: jax.Array,
        memory: Any = None,
        memory_segments: Any = None,
        *,
        deterministic: bool,
        key: jax.Array | None,
    ) -> tuple[jax.Array, RouterStatistics | None]:
        """[B, L, D] -> [B, L, D] and, of a Switch layer, the router's statistics; see `Stack`.

        `key` is an array of KEYS keys.
        """
        keys = [None] * KEYS if key is None else list(key)
        y = self.self_attention_norm(x)
        with jax.named_scope("attention"):
            y = self.self_attention(
                y, y, segments, segments, bias, causal=self.decoder, key=keys[0]
            )
        x = constrain_batch(x + dropout(y, self.rate, keys[1]))
        if self.decoder:
            y = self.cross_attention_norm(x)
            with jax.named_scope("attention"):
                y = self.cross_attention(y, memory, segments, memory_segments, key=keys[2])
            x = constrain_batch(x + dropout(y, self.rate, keys[3]))
        y = self.feed_forward_norm(x)
        y, statistics = self.feed_forward(
            y, segments != 0, deterministic=deterministic, key=keys[4]
        )
        return constrain_batch(x + dropout(y, self.rate, keys[5])), statistics


class Block(nnx.Module):
    """The layers between one Switch layer and the next: dense ones first, the Switch layer last."""

    def __init__(self, config: ModelConfig, decoder: bool, rngs: nnx.Rngs) -> None:
        self.num_layers = config.layers_per_block
        for i in range(self.num_layers):
            sparse = config.num_experts > 0 and i == self.num_layers - 1
            setattr(self, f"layer_{i}", Layer(config, decoder, sparse, rngs))

    def __call__(
        self, x: jax.Array, *args, deterministic: bool, key: jax.Array | None
    ) -> tuple[jax.Array, RouterStatistics | None]:
        """As `Layer`, with KEYS keys for each; the statistics are None in a dense model."""
        statistics = None
        for i in range(self.num_layers):
            layer = getattr(self, f"layer_{i}")
            layer_key = None if key is None else key[i]
            x, statistics = layer(x, *args, deterministic=deterministic, key=layer_key)
        return x, statistics


class Stack(nnx.Module):
    """Encoder or decoder: one block scanned over stacked parameters, and a last norm."""

    def __init__(self, config: ModelConfig, num_layers: int, decoder: bool, rngs: nnx.Rngs) -> None:
        self.relative_position_bias = RelativePositionBias(config, not decoder, rngs)
        self.blocks = stacked(
            lambda key: Block(config, decoder, nnx.Rngs(params=key)),
            jax.random.split(rngs.params(), num_layers // config.layers_per_block),
        )
        self.final_norm = RMSNorm(config)
        self.decoder = decoder
        self.config = config

    def __call__(
        self,
        x: jax.Array,
        segments: jax.Array,
        memory: jax.Array | None = None,
        memory_segments: Any = None,
        *,
        deterministic: bool,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, RouterStatistics | None]:
        """Runs the stack.

        Args:
          x: [B, L, D] embedded tokens.
          segments: [B, L] int32, which packed example a token is of; 0 = padding.
          memory: [B, M, D] encoder output; decoder only.
          memory_segments: [B, M] int32; decoder only.
          deterministic: True = evaluation: no dropout, no jitter, evaluation capacity.
          key: for dropout and jitter.

        Returns:
          [B, L, D], and the routers' statistics with a leading axis of Switch layers
          (None in a dense model).
        """
        rate = self.config.dropout_rate
        num_blocks = jax.tree.leaves(nnx.state(self.blocks))[0].shape[0]
        if deterministic or key is None:
            first, last, block_keys = None, None, None
        else:
            first, last, blocks = jax.random.split(key, 3)
            # All at once: made where they are used they would be dozens of tiny operations a layer.
            block_keys = jax.random.split(blocks, (num_blocks, self.config.layers_per_block, KEYS))

        bias = self.relative_position_bias(segments.shape[1])
        graph, state = nnx.split(self.blocks)

        def body(x, block):
            block_state, block_key = block
            return nnx.merge(graph, for_computing(block_state, self.config.dtype))(
                x, segments, bias, memory, memory_segments,
                deterministic=deterministic, key=block_key,
            )  # fmt: skip

        body = rematerialise(body, self.config.remat_policy)
        x = constrain_batch(dropout(x, rate, first))
        x, statistics = jax.lax.scan(
            body, x, (state, block_keys), unroll=1 if self.config.scan_layers else num_blocks
        )
        return dropout(self.final_norm(x), rate, last), statistics


def stacked(make: Callable[[jax.Array], nnx.Module], keys: jax.Array) -> nnx.Module:
    """One module whose parameters have a leading axis 'layers', made with one key each."""
    graph, _ = nnx.split(nnx.eval_shape(lambda: make(keys[0])))
    state = jax.vmap(lambda key: nnx.state(make(key)))(keys)
    state = jax.tree.map(
        lambda p: p.replace(axes=("layers", *p.axes)),
        state,
        is_leaf=lambda p: isinstance(p, nnx.Variable),
    )
    return nnx.merge(graph, state)
