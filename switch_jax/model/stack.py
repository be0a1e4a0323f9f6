"""Layers, blocks of layers, and the stack that is scanned over its blocks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from switch_jax.config import ModelConfig
from switch_jax.model.attention import Attention
from switch_jax.model.feed_forward import DenseFeedForward, SwitchFeedForward
from switch_jax.model.layers import RelativePositionBias, RMSNorm, dropout
from switch_jax.model.parameters import cast_and_gather
from switch_jax.model.remat import rematerialise
from switch_jax.moe import RouterStatistics
from switch_jax.partitioning.mesh import constrain_batch

KeysAndValues = tuple[jax.Array, jax.Array]
KEYS = 6  # that a layer takes for dropout: within its sublayers, and after each


class Layer(nnx.Module):
    """Self-attention, in the decoder cross-attention, and a feed-forward layer; pre-norm."""

    def __init__(self, config: ModelConfig, decoder: bool, sparse: bool, rngs: nnx.Rngs) -> None:
        self.self_attention_norm = RMSNorm(config)
        self.self_attention = Attention(config, rngs)
        if decoder:
            self.cross_attention_norm = RMSNorm(config)
            self.cross_attention = Attention(config, rngs)
        self.feed_forward_norm = RMSNorm(config)
        self.feed_forward = (
            SwitchFeedForward(config, decoder, rngs) if sparse else DenseFeedForward(config, rngs)
        )
        self.rate = config.dropout_rate
        self.decoder, self.sparse = decoder, sparse

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
        number: Any = 0,
    ) -> tuple[jax.Array, RouterStatistics | None]:
        """[B, L, D] -> [B, L, D] and, of a Switch layer, the router's statistics; see `Stack`.

        `key` is that of the stack, and `number` the layer's own.
        """
        # Only where they are used: keys are made by dozens of tiny operations.
        keys: list[Any] = [None] * KEYS
        if key is not None and self.rate > 0:
            keys = list(jax.random.split(jax.random.fold_in(key, number), KEYS))
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
        noise = {"key": key, "number": number} if self.sparse else {"key": keys[4]}
        y, statistics = self.feed_forward(y, segments != 0, deterministic=deterministic, **noise)
        return constrain_batch(x + dropout(y, self.rate, keys[5])), statistics

    def step(
        self,
        x: jax.Array,
        valid: jax.Array,
        bias: jax.Array,
        position: jax.Array,
        memory_segments: jax.Array,
        *,
        memory: KeysAndValues,
        cache: KeysAndValues,
    ) -> tuple[jax.Array, KeysAndValues]:
        """One new token of each beam, in the decoder; see `Stack.step`."""
        y, new = self.self_attention.step(self.self_attention_norm(x), *cache, bias, position)
        x = constrain_batch(x + y)
        y = self.cross_attention.read(self.cross_attention_norm(x), *memory, memory_segments)
        x = constrain_batch(x + y)
        return constrain_batch(x + self.feed_forward.step(self.feed_forward_norm(x), valid)), new


class Block(nnx.Module):
    """The layers between one Switch layer and the next: dense ones first, the Switch layer last."""

    def __init__(self, config: ModelConfig, decoder: bool, rngs: nnx.Rngs) -> None:
        self.num_layers = config.layers_per_block
        for i in range(self.num_layers):
            sparse = config.num_experts > 0 and i == self.num_layers - 1
            setattr(self, f"layer_{i}", Layer(config, decoder, sparse, rngs))

    def __call__(
        self, x: jax.Array, *args, deterministic: bool, key: jax.Array | None, number: Any
    ) -> tuple[jax.Array, RouterStatistics | None]:
        """As `Layer`; `number` is the block's. The statistics are None in a dense model."""
        statistics = None
        for i, layer in enumerate(self._layers()):
            x, statistics = layer(
                x, *args, deterministic=deterministic, key=key, number=number * self.num_layers + i
            )
        return x, statistics

    def read(self, memory: jax.Array) -> list[KeysAndValues]:
        """Keys and values of each layer's cross-attention, [B, M, H * K]."""
        return [layer.cross_attention.keys_and_values(memory) for layer in self._layers()]

    def step(
        self, x: jax.Array, *args, memory: list[KeysAndValues], cache: list[KeysAndValues]
    ) -> tuple[jax.Array, list[KeysAndValues]]:
        """As `Layer.step`, with what is kept for each layer."""
        new = []
        for layer, its_memory, its_cache in zip(self._layers(), memory, cache, strict=True):
            x, of_layer = layer.step(x, *args, memory=its_memory, cache=its_cache)
            new.append(of_layer)
        return x, new

    def _layers(self) -> list[Layer]:
        return [getattr(self, f"layer_{i}") for i in range(self.num_layers)]


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
            first, last, blocks = None, None, None
        else:
            first, last, blocks = jax.random.split(key, 3)

        bias = self.relative_position_bias(segments.shape[1])
        graph, state = nnx.split(self.blocks)

        def body(x, block):
            block_state, number = block
            return nnx.merge(graph, cast_and_gather(block_state, self.config.activation_dtype))(
                x, segments, bias, memory, memory_segments,
                deterministic=deterministic, key=blocks, number=number,
            )  # fmt: skip

        # The compiler takes a loop of one iteration for none.
        in_loop = self.config.scan_layers and num_blocks > 1
        body = rematerialise(body, self.config.remat_policy, in_loop=in_loop)
        x = constrain_batch(dropout(x, rate, first))
        x, statistics = jax.lax.scan(
            body, x, (state, jnp.arange(num_blocks)), unroll=1 if in_loop else num_blocks
        )
        return dropout(self.final_norm(x), rate, last), statistics

    def read(self, memory: jax.Array) -> list[KeysAndValues]:
        """What the decoder's cross-attention reads of the encoder's output.

        Args:
          memory: [B, M, D].

        Returns:
          For each layer of a block its keys and values, each [blocks, B, M, H * K].
        """
        graph, state = nnx.split(self.blocks)

        def body(block_state):
            block: Any = nnx.merge(
                graph, cast_and_gather(block_state, self.config.activation_dtype)
            )
            return block.read(memory)

        return jax.lax.map(body, state)

    def step(
        self,
        x: jax.Array,
        valid: jax.Array,
        bias: jax.Array,
        position: jax.Array,
        memory_segments: jax.Array,
        *,
        memory: list[KeysAndValues],
        cache: list[KeysAndValues],
    ) -> tuple[jax.Array, list[KeysAndValues]]:
        """Runs the decoder over one new token of each beam.

        Args:
          x: [B, beams, D] embedded tokens.
          valid: [B, beams] bool, False for a beam that has ended: its experts compute nothing.
          bias: as `RelativePositionBias` gives it for L.
          position: scalar int32, of the new tokens.
          memory_segments: [B, M] int32.
          memory: what `read` gave.
          cache: for each layer of a block the keys and values of the tokens before, each
            [blocks, B, beams, L, H * K].

        Returns:
          [B, beams, D], and keys and values of the new tokens, each [blocks, B, beams, H * K].
        """
        graph, state = nnx.split(self.blocks)

        def body(x, block):
            block_state, its_memory, its_cache = block
            module: Any = nnx.merge(
                graph, cast_and_gather(block_state, self.config.activation_dtype)
            )
            return module.step(
                x, valid, bias, position, memory_segments, memory=its_memory, cache=its_cache
            )

        x, new = jax.lax.scan(body, constrain_batch(x), (state, memory, cache))
        return self.final_norm(x), new


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
