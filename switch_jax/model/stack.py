"""The layer, the block of layers, and the stack: scans over blocks."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from switch_jax.config import ModelConfig
from switch_jax.config.sparse_layers import Blocks
from switch_jax.config.stack import StackConfig
from switch_jax.model.attention import CrossAttention, DenseSelfAttention, Encoded, KeysAndValues
from switch_jax.model.feed_forward import DenseFeedForward, SwitchFeedForward
from switch_jax.model.heads import Rotation
from switch_jax.model.layer_context import LayerContext
from switch_jax.model.layers import RMSNorm, dropout
from switch_jax.model.mixed_precision import cast_and_gather
from switch_jax.model.relative_position_bias import RelativePositionBias
from switch_jax.model.remat import rematerialise
from switch_jax.model.switch_attention import SwitchAttention
from switch_jax.moe import LayerKey, RouterOutput, Tokens
from switch_jax.partitioning.mesh import constrain_activations


class DecodingState(NamedTuple):
    """The state that decoding keeps between tokens.

    Attributes:
      position_bias: see `LayerContext`; it is made once for all tokens.
      prompt: see `LayerContext`.
      encoded: the segments of the tokens of the stack that this one attends to; None without one.
      cross_cache: for each layer of a block, keys and values of those tokens, each
        [blocks, B, M, H * K]; None without them.
      cache: for each layer of a block, keys and values of the prompt, if there is one, and of the
        stack's own tokens so far, each [blocks, B, beams, P + L, H * K].
    """

    position_bias: jax.Array | None
    prompt: jax.Array | None
    encoded: Encoded | None
    cross_cache: list[KeysAndValues | None]
    cache: list[KeysAndValues]


class LayerCache(NamedTuple):
    """The part of `DecodingState` that one layer has for its two attentions."""

    tokens: KeysAndValues
    encoded: KeysAndValues | None


class LayerOutput(NamedTuple):
    """What routers return, if any; in decoding, and of prompts, the new keys and values."""

    routers: list[RouterOutput]
    keys_and_values: KeysAndValues | None


class Layer(nnx.Module):
    """Self-attention, cross-attention if the stack has it, and a feed-forward layer; pre-norm."""

    def __init__(
        self, config: ModelConfig, stack: StackConfig, sparse: bool, rngs: nnx.Rngs
    ) -> None:
        experts_in = stack.sublayers_with_experts if sparse else ()
        self.self_attention_norm = RMSNorm(config)
        attention = SwitchAttention if "attention" in experts_in else DenseSelfAttention
        self.self_attention = attention(config, stack, rngs)
        if stack.attends_to:
            self.cross_attention_norm = RMSNorm(config)
            self.cross_attention = CrossAttention(config, rngs)
        self.feed_forward_norm = RMSNorm(config)
        self.feed_forward: DenseFeedForward | SwitchFeedForward
        if "feed_forward" in experts_in:
            self.feed_forward = SwitchFeedForward(config, stack, rngs)
        else:
            self.feed_forward = DenseFeedForward(config, rngs)
        self.rate = config.dropout_rate
        self.attends = stack.attends_to is not None

    def __call__(
        self,
        x: jax.Array,
        tokens: Tokens,
        context: LayerContext,
        encoded: Encoded | None = None,
        cache: LayerCache | None = None,
    ) -> tuple[jax.Array, LayerOutput]:
        """[B, L, D] -> [B, L, D]; see `Stack`."""
        context = context.with_dropout_keys(self.rate)
        keys = context.dropout
        cached, cached_of_encoded = cache or (None, None)
        y = self.self_attention_norm(x)
        with jax.named_scope("attention"):
            y, new, of_attention = self.self_attention(y, tokens, context, cached)
        x = constrain_activations(x + dropout(y, self.rate, keys.after_self_attention))
        if self.attends:
            assert encoded is not None
            y = self.cross_attention_norm(x)
            with jax.named_scope("attention"):
                y = self.cross_attention(y, tokens, context, encoded, cached_of_encoded)
            x = constrain_activations(x + dropout(y, self.rate, keys.after_cross_attention))
        y, of_feed_forward = self.feed_forward(self.feed_forward_norm(x), tokens, context)
        x = constrain_activations(x + dropout(y, self.rate, keys.after_feed_forward))
        routers = [its for its in (of_attention, of_feed_forward) if its is not None]
        return x, LayerOutput(routers, new if context.generates else None)


class Block(nnx.Module):
    """Layers that are scanned over together: dense ones and, last, one with experts, if any has."""

    def __init__(
        self, config: ModelConfig, stack: StackConfig, blocks: Blocks, parameter_keys: jax.Array
    ) -> None:
        """`blocks`: of which it is one. `parameter_keys`: one for each layer."""
        self.first_layer = blocks.first_layer
        self.num_layers = blocks.layers_per_block
        for i in range(self.num_layers):
            sparse = blocks.has_experts and i == self.num_layers - 1
            layer = Layer(config, stack, sparse, nnx.Rngs(params=parameter_keys[i]))
            setattr(self, f"layer_{i}", layer)

    def __call__(
        self,
        x: jax.Array,
        tokens: Tokens,
        context: LayerContext,
        encoded: Encoded | None,
        caches: list[LayerCache | None],
        block_index: Any,
    ) -> tuple[jax.Array, list[LayerOutput]]:
        """As `Layer`, with the cache and the output of each layer."""
        outputs = []
        for i, (layer, cache) in enumerate(zip(self._layers(), caches, strict=True)):
            number = self.first_layer + block_index * self.num_layers + i
            x, output = layer(x, tokens, context.in_layer(number), encoded, cache)
            outputs.append(output)
        return x, outputs

    def cross_keys_and_values(self, memory: jax.Array) -> list[KeysAndValues]:
        """[B, M, D] -> for each layer the keys and values of its cross-attention, [B, M, H * K]."""
        return [layer.cross_attention.keys_and_values(memory) for layer in self._layers()]

    def _layers(self) -> list[Layer]:
        return [getattr(self, f"layer_{i}") for i in range(self.num_layers)]


class Stack(nnx.Module):
    """Blocks of layers, scanned over with stacked parameters, and a final norm.

    With some sparse layouts other kinds follow `blocks`: `blocks_1` and `blocks_2`.
    """

    def __init__(self, config: ModelConfig, stack: StackConfig, rngs: nnx.Rngs) -> None:
        if not config.has_rotary_positions:
            self.relative_position_bias = RelativePositionBias(config, not stack.causal, rngs)
        # One key for each layer, so that all parameters outside the experts start as in the dense
        # model with this seed.
        keys = jax.random.split(rngs.params(), stack.num_layers)
        for kind in stack.blocks:
            last = kind.first_layer + kind.num_blocks * kind.layers_per_block
            own_keys = keys[kind.first_layer : last].reshape(kind.num_blocks, kind.layers_per_block)
            blocks = stacked(functools.partial(Block, config, stack, kind), own_keys)
            setattr(self, kind.name, blocks)
        self.block_names = tuple(kind.name for kind in stack.blocks)
        self.final_norm = RMSNorm(config)
        self.config = config

    def __call__(
        self,
        x: jax.Array,
        tokens: Tokens,
        encoded: Encoded | None = None,
        *,
        key: jax.Array | None = None,
        decoding: DecodingState | None = None,
        position: jax.Array | None = None,
        is_prompt: bool = False,
        with_choices: bool = False,
    ) -> tuple[jax.Array, RouterOutput | None, list[KeysAndValues | None]]:
        """Runs the stack on whole rows or, in decoding, on one new token of each beam.

        Args:
          x: [B, L, D], or in decoding [B, beams, D]: embedded tokens.
          tokens: [B, L], or in decoding [B, beams].
          encoded: what it sees of the stack that it attends to, if any.
          key: of the stack in a step of training; None elsewhere.
          decoding, position: in decoding, the state before these tokens, and their position.
          is_prompt: the rows are prompts, which decoding goes on from.
          with_choices: see `LayerContext`.

        Returns:
          The shape of x. What the routers return, with a leading axis of `StackConfig.routers`;
          None without experts, of prompts and in decoding. And for each layer of a block, of these,
          the keys and values of the new tokens, each [blocks, B, L or beams, H * K].
        """
        rate, first_key, last_key, layer_key = self.config.dropout_rate, None, None, None
        if key is not None:
            first_key, last_key, stack_key = jax.random.split(key, 3)
            layer_key = LayerKey(stack_key)
        if decoding is None:
            bias = self.position_bias(x.shape[1])  # [H, 2 W] or None
            prompt = tokens.segments if is_prompt else None
        else:
            bias, prompt, encoded, *_ = decoding
        context = LayerContext(
            layer_key,
            position_bias=bias,
            position=position,
            prompt=prompt,
            rotation=self._rotation(x.shape[1], position),
            with_choices=with_choices,
        )
        x = constrain_activations(dropout(x, rate, first_key))
        routers: list[RouterOutput] = []
        new: list[KeysAndValues | None] = []
        for graph, state in self._blocks():
            num_blocks = jax.tree.leaves(state)[0].shape[0]
            places = slice(len(new), len(new) + len(state))  # one for each layer of a block
            caches: list[LayerCache | None] = [None] * len(state)
            if decoding is not None:
                both = zip(decoding.cache[places], decoding.cross_cache[places], strict=True)
                caches = [LayerCache(*of_layer) for of_layer in both]

            def body(x, scanned, graph=graph):
                block_state, caches, block_index = scanned
                block = self._block(graph, block_state)
                return block(x, tokens, context, encoded, caches, block_index)

            # A loop of one iteration is compiled as no loop.
            in_loop = (self.config.scan_layers or context.generates) and num_blocks > 1
            body = rematerialise(body, self.config.remat_policy, in_loop=in_loop)
            x, outputs = jax.lax.scan(
                body,
                x,
                (state, caches, jnp.arange(num_blocks)),
                unroll=1 if in_loop else num_blocks,
            )
            # Only the last layer of a block has routers.
            routers += [_of_routers(its.routers) for its in outputs if its.routers]
            new += [its.keys_and_values for its in outputs]
        return dropout(self.final_norm(x), rate, last_key), _in_a_row(routers), new

    def position_bias(self, length: int) -> jax.Array | None:
        """See `RelativePositionBias`; None where positions are rotary."""
        if self.config.has_rotary_positions:
            return None
        return self.relative_position_bias(length)

    def _rotation(self, length: int, position: jax.Array | None) -> Rotation | None:
        """Of whole rows or, in decoding, of the new token of each beam; None without rotation."""
        if not self.config.has_rotary_positions:
            return None
        positions = jnp.arange(length) if position is None else position[None]  # [L] or [1]
        return Rotation.of(self.config, positions)

    def cross_keys_and_values(self, memory: jax.Array) -> list[KeysAndValues | None]:
        """The keys and values of the cross-attention, computed once for all steps of decoding.

        From [B, M, D], the other stack's output: [blocks, B, M, H * K] each, by layer of a block.
        """
        keys_and_values: list[KeysAndValues | None] = []
        for graph, state in self._blocks():

            def body(block_state, graph=graph):
                return self._block(graph, block_state).cross_keys_and_values(memory)

            keys_and_values += jax.lax.map(body, state)
        return keys_and_values

    def _blocks(self) -> list[tuple[nnx.GraphDef, nnx.State]]:
        """Graph and stacked parameters of each kind of block."""
        return [nnx.split(getattr(self, name)) for name in self.block_names]

    def _block(self, graph: nnx.GraphDef, state: nnx.State) -> Any:
        """One block of the scan, with its parameters in the form in which it computes with them."""
        return nnx.merge(graph, cast_and_gather(state, self.config.activation_dtype))


def _of_routers(by_router: list[RouterOutput]) -> RouterOutput:
    """Stacks what a block's routers return: [blocks, ...] each -> [blocks * routers, ...]."""
    if len(by_router) == 1:
        return by_router[0]
    return jax.tree.map(
        lambda *arrays: jnp.stack(arrays, axis=1).reshape(-1, *arrays[0].shape[1:]), *by_router
    )


def _in_a_row(by_blocks: list[RouterOutput]) -> RouterOutput | None:
    """Joins what several kinds of blocks return, on axis 0; None where no block has a router."""
    if len(by_blocks) < 2:
        return by_blocks[0] if by_blocks else None
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *by_blocks)


def stacked(make: Callable[[jax.Array], nnx.Module], keys: jax.Array) -> nnx.Module:
    """One module whose parameters have a leading axis 'layers': one entry for each of the keys."""
    graph, state = nnx.split(nnx.vmap(make)(keys))
    state = jax.tree.map(
        lambda p: p.replace(axes=("layers", *p.axes)),
        state,
        is_leaf=lambda p: isinstance(p, nnx.Variable),
    )
    return nnx.merge(graph, state)
