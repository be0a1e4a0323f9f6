"""The layer, the block of layers, and the stack: scans over blocks."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from switch_jax.config import ModelConfig
from switch_jax.config.sparse_layers import Blocks
from switch_jax.model.attention import Attention
from switch_jax.model.feed_forward import DenseFeedForward, SwitchFeedForward
from switch_jax.model.layers import RMSNorm, dropout
from switch_jax.model.parameters import cast_and_gather
from switch_jax.model.relative_position_bias import RelativePositionBias
from switch_jax.model.remat import rematerialise
from switch_jax.model.switch_attention import SwitchAttention
from switch_jax.moe import RouterStatistics
from switch_jax.partitioning.mesh import constrain_batch

KeysAndValues = tuple[jax.Array, jax.Array]


class DropoutKeys(NamedTuple):
    """The random keys of a layer's dropout, within each sublayer and after it; None: no dropout."""

    self_attention: jax.Array | None = None
    after_self_attention: jax.Array | None = None
    cross_attention: jax.Array | None = None
    after_cross_attention: jax.Array | None = None
    feed_forward: jax.Array | None = None
    after_feed_forward: jax.Array | None = None


class Layer(nnx.Module):
    """Self-attention, in the decoder cross-attention, and a feed-forward layer; pre-norm."""

    def __init__(self, config: ModelConfig, decoder: bool, sparse: bool, rngs: nnx.Rngs) -> None:
        experts_in = config.sublayers_with_experts if sparse else ()
        self.self_attention_norm = RMSNorm(config)
        self.self_attention: Attention | SwitchAttention
        if "attention" in experts_in:
            self.self_attention = SwitchAttention(config, decoder, rngs)
        else:
            self.self_attention = Attention(config, rngs)
        if decoder:
            self.cross_attention_norm = RMSNorm(config)
            self.cross_attention = Attention(config, rngs)
        self.feed_forward_norm = RMSNorm(config)
        self.feed_forward: DenseFeedForward | SwitchFeedForward
        if "feed_forward" in experts_in:
            self.feed_forward = SwitchFeedForward(config, decoder, rngs)
        else:
            self.feed_forward = DenseFeedForward(config, rngs)
        self.rate = config.dropout_rate
        self.decoder = decoder
        # Routers of attention are numbered after those of feed-forward layers.
        self.first_attention_router = (
            config.num_decoder_layers if decoder else config.num_encoder_layers
        )

    def __call__(
        self,
        x: jax.Array,
        segments: jax.Array,
        bias: jax.Array,
        memory: Any = None,
        memory_segments: Any = None,
        *,
        deterministic: bool,
        stack_key: jax.Array | None,
        layer_index: Any = 0,
    ) -> tuple[jax.Array, list[RouterStatistics]]:
        """[B, L, D] -> [B, L, D] and the statistics of its routers, if it has any; see `Stack`.

        `stack_key` is that of all layers; `layer_index` makes the layer's noise its own.
        """
        # Only where they are used: making keys takes dozens of tiny operations.
        keys = DropoutKeys()
        if stack_key is not None and self.rate > 0:
            layer_key = jax.random.fold_in(stack_key, layer_index)
            keys = DropoutKeys(*jax.random.split(layer_key, len(DropoutKeys._fields)))
        x, statistics = self._attend(
            x, segments, bias, memory, memory_segments, keys, deterministic, stack_key, layer_index
        )
        y = self.feed_forward_norm(x)
        noise = {"key": keys.feed_forward}
        if isinstance(self.feed_forward, SwitchFeedForward):
            noise = {
                "key": stack_key,
                "shared_expert_key": keys.feed_forward,
                "router_index": layer_index,
            }
        y, own = self.feed_forward(y, segments != 0, deterministic=deterministic, **noise)
        if own is not None:
            statistics.append(own)
        return constrain_batch(x + dropout(y, self.rate, keys.after_feed_forward)), statistics

    def _attend(
        self,
        x: jax.Array,
        segments: jax.Array,
        bias: jax.Array,
        memory: Any,
        memory_segments: Any,
        keys: DropoutKeys,
        deterministic: bool,
        stack_key: jax.Array | None,
        layer_index: Any,
    ) -> tuple[jax.Array, list[RouterStatistics]]:
        """[B, L, D] -> [B, L, D], after self-attention and, in the decoder, cross-attention."""
        statistics = []
        y = self.self_attention_norm(x)
        with jax.named_scope("attention"):
            if isinstance(self.self_attention, SwitchAttention):
                y, own = self.self_attention(
                    y,
                    segments,
                    bias,
                    causal=self.decoder,
                    deterministic=deterministic,
                    key=stack_key,
                    dropout_key=keys.self_attention,
                    router_index=self.first_attention_router + layer_index,
                )
                statistics.append(own)
            else:
                y = self.self_attention(
                    y, y, segments, segments, bias, causal=self.decoder, key=keys.self_attention
                )
        x = constrain_batch(x + dropout(y, self.rate, keys.after_self_attention))
        if self.decoder:
            y = self.cross_attention_norm(x)
            with jax.named_scope("attention"):
                y = self.cross_attention(
                    y, memory, segments, memory_segments, key=keys.cross_attention
                )
            x = constrain_batch(x + dropout(y, self.rate, keys.after_cross_attention))
        return x, statistics

    def step(
        self,
        x: jax.Array,
        valid: jax.Array,
        bias: jax.Array,
        position: jax.Array,
        memory_segments: jax.Array,
        *,
        cross_cache: KeysAndValues,
        cache: KeysAndValues,
    ) -> tuple[jax.Array, KeysAndValues]:
        """One new token of each beam, in the decoder; see `Stack.step`."""
        y = self.self_attention_norm(x)
        y, new = self.self_attention.step(y, valid, *cache, bias, position)
        x = constrain_batch(x + y)
        y = self.cross_attention_norm(x)
        y = self.cross_attention.step_cross(y, *cross_cache, memory_segments)
        x = constrain_batch(x + y)
        y = self.feed_forward.step(self.feed_forward_norm(x), valid)
        return constrain_batch(x + y), new


class Block(nnx.Module):
    """Layers that are scanned over together: dense ones and, last, one with experts, if any has."""

    def __init__(
        self, config: ModelConfig, blocks: Blocks, decoder: bool, parameter_keys: jax.Array
    ) -> None:
        """`blocks`: of which it is one. `parameter_keys`: one for each layer."""
        self.first_layer = blocks.first_layer
        self.num_layers = blocks.layers_per_block
        for i in range(self.num_layers):
            sparse = blocks.has_experts and i == self.num_layers - 1
            layer = Layer(config, decoder, sparse, nnx.Rngs(params=parameter_keys[i]))
            setattr(self, f"layer_{i}", layer)

    def __call__(
        self,
        x: jax.Array,
        *args,
        deterministic: bool,
        stack_key: jax.Array | None,
        block_index: Any,
    ) -> tuple[jax.Array, list[RouterStatistics]]:
        """The same as `Layer`."""
        statistics: list[RouterStatistics] = []
        for i, layer in enumerate(self._layers()):
            # Only the last layer has routers: the statistics of those before it are empty.
            x, statistics = layer(
                x,
                *args,
                deterministic=deterministic,
                stack_key=stack_key,
                layer_index=self.first_layer + block_index * self.num_layers + i,
            )
        return x, statistics

    def cross_keys_and_values(self, memory: jax.Array) -> list[KeysAndValues]:
        """[B, M, D] -> for each layer the keys and values of its cross-attention, [B, M, H * K]."""
        return [layer.cross_attention.keys_and_values(memory) for layer in self._layers()]

    def step(
        self, x: jax.Array, *args, cross_cache: list[KeysAndValues], cache: list[KeysAndValues]
    ) -> tuple[jax.Array, list[KeysAndValues]]:
        """The same as `Layer.step`, with the caches of each layer."""
        new = []
        for layer, of_memory, own in zip(self._layers(), cross_cache, cache, strict=True):
            x, keys_and_values = layer.step(x, *args, cross_cache=of_memory, cache=own)
            new.append(keys_and_values)
        return x, new

    def _layers(self) -> list[Layer]:
        return [getattr(self, f"layer_{i}") for i in range(self.num_layers)]


class Stack(nnx.Module):
    """Encoder or decoder: blocks scanned over with stacked parameters, and a final norm.

    Most have one kind of block, `blocks`; with some sparse layouts others follow it, `blocks_1` and
    `blocks_2`.
    """

    def __init__(self, config: ModelConfig, num_layers: int, decoder: bool, rngs: nnx.Rngs) -> None:
        self.relative_position_bias = RelativePositionBias(config, not decoder, rngs)
        # One key for each layer, so that all parameters outside the experts start as in the dense
        # model with this seed.
        keys = jax.random.split(rngs.params(), num_layers)
        kinds = config.blocks["decoder" if decoder else "encoder"]
        for kind in kinds:
            last = kind.first_layer + kind.num_blocks * kind.layers_per_block
            own_keys = keys[kind.first_layer : last].reshape(kind.num_blocks, kind.layers_per_block)
            blocks = stacked(functools.partial(Block, config, kind, decoder), own_keys)
            setattr(self, kind.name, blocks)
        self.block_names = tuple(kind.name for kind in kinds)
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
          segments: [B, L] int32, the packed example that a token belongs to; 0 = padding.
          memory: [B, M, D] encoder output; decoder only.
          memory_segments: [B, M] int32; decoder only.
          deterministic: True = evaluation: no dropout, no jitter, the evaluation capacity factor.
          key: for dropout and jitter; None = neither.

        Returns:
          [B, L, D], and the routers' statistics with a leading axis of `ModelConfig.routers`
          (None in a dense model).
        """
        rate = self.config.dropout_rate
        if deterministic or key is None:
            first_key, last_key, stack_key = None, None, None
        else:
            first_key, last_key, stack_key = jax.random.split(key, 3)

        bias = self.relative_position_bias(segments.shape[1])  # [H, 2 W]
        x = constrain_batch(dropout(x, rate, first_key))
        statistics = []
        for graph, state in self._blocks():
            num_blocks = jax.tree.leaves(state)[0].shape[0]

            def body(x, scanned, graph=graph):
                block_state, block_index = scanned
                block = self._block(graph, block_state)
                arrays = segments, bias, memory, memory_segments
                return block(
                    x,
                    *arrays,
                    deterministic=deterministic,
                    stack_key=stack_key,
                    block_index=block_index,
                )

            # A loop of one iteration is compiled as no loop.
            in_loop = self.config.scan_layers and num_blocks > 1
            body = rematerialise(body, self.config.remat_policy, in_loop=in_loop)
            x, own = jax.lax.scan(
                body, x, (state, jnp.arange(num_blocks)), unroll=1 if in_loop else num_blocks
            )
            statistics += [_of_routers(own)] if own else []
        return dropout(self.final_norm(x), rate, last_key), _in_a_row(statistics)

    def cross_keys_and_values(self, memory: jax.Array) -> list[KeysAndValues]:
        """The keys and values of the decoder's cross-attention, computed once for all steps.

        Args:
          memory: [B, M, D], the encoder's output.

        Returns:
          For each layer of a block its keys and values, each [blocks, B, M, H * K].
        """
        keys_and_values: list[KeysAndValues] = []
        for graph, state in self._blocks():

            def body(block_state, graph=graph):
                return self._block(graph, block_state).cross_keys_and_values(memory)

            keys_and_values += jax.lax.map(body, state)
        return keys_and_values

    def step(
        self,
        x: jax.Array,
        valid: jax.Array,
        bias: jax.Array,
        position: jax.Array,
        memory_segments: jax.Array,
        *,
        cross_cache: list[KeysAndValues],
        cache: list[KeysAndValues],
    ) -> tuple[jax.Array, list[KeysAndValues]]:
        """Runs the decoder on one new token of each beam.

        Args:
          x: [B, beams, D] embedded tokens.
          valid: [B, beams] bool, False for a beam that has ended: its experts compute nothing.
          bias: [H, 2 W] float32, from `RelativePositionBias` for length L.
          position: scalar int32, that of the new tokens.
          memory_segments: [B, M] int32.
          cross_cache: the result of `cross_keys_and_values`.
          cache: for each layer of a block the keys and values of the tokens before, each
            [blocks, B, beams, L, H * K].

        Returns:
          [B, beams, D], and for each layer of a block the keys and values of the new tokens, each
          [blocks, B, beams, H * K].
        """
        x = constrain_batch(x)
        new: list[KeysAndValues] = []
        for graph, state in self._blocks():

            def body(x, scanned, graph=graph):
                block_state, of_memory, own = scanned
                block = self._block(graph, block_state)
                return block.step(
                    x, valid, bias, position, memory_segments, cross_cache=of_memory, cache=own
                )

            places = slice(len(new), len(new) + len(state))  # one for each layer of a block
            x, of_blocks = jax.lax.scan(body, x, (state, cross_cache[places], cache[places]))
            new += of_blocks
        return self.final_norm(x), new

    def _blocks(self) -> list[tuple[nnx.GraphDef, nnx.State]]:
        """Graph and stacked parameters of each kind of block."""
        return [nnx.split(getattr(self, name)) for name in self.block_names]

    def _block(self, graph: nnx.GraphDef, state: nnx.State) -> Any:
        """One block of the scan, with its parameters in the form in which it computes with them."""
        return nnx.merge(graph, cast_and_gather(state, self.config.activation_dtype))


def _of_routers(by_router: list[RouterStatistics]) -> RouterStatistics:
    """Joins the statistics of a block's routers.

    For each router arrays [blocks, ...] -> arrays [blocks * routers, ...].
    """
    if len(by_router) == 1:
        return by_router[0]
    return jax.tree.map(
        lambda *arrays: jnp.stack(arrays, axis=1).reshape(-1, *arrays[0].shape[1:]), *by_router
    )


def _in_a_row(by_blocks: list[RouterStatistics]) -> RouterStatistics | None:
    """Joins the statistics of several kinds of blocks on axis 0; None where there are none."""
    if len(by_blocks) < 2:
        return by_blocks[0] if by_blocks else None
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *by_blocks)


def stacked(make: Callable[[jax.Array], nnx.Module], keys: jax.Array) -> nnx.Module:
    """One module whose parameters have a leading axis 'layers': one entry for each of the keys."""
    graph, _ = nnx.split(nnx.eval_shape(lambda: make(keys[0])))
    state = jax.vmap(lambda key: nnx.state(make(key)))(keys)
    state = jax.tree.map(
        lambda p: p.replace(axes=("layers", *p.axes)),
        state,
        is_leaf=lambda p: isinstance(p, nnx.Variable),
    )
    return nnx.merge(graph, state)
