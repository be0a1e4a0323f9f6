"""The Transformer of a model's stacks, for training and for decoding step by step."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from switch_jax.config import ModelConfig
from switch_jax.model import parameters
from switch_jax.model.attention import Encoded
from switch_jax.model.layers import Embedding
from switch_jax.model.stack import DecodingState, Stack
from switch_jax.moe import Choices, RouterStatistics, Tokens
from switch_jax.partitioning.mesh import constrain_batch


class Output(NamedTuple):
    """What the model returns.

    Attributes:
      logits: [B, L, V] float32.
      routers: the routers' statistics of each stack with experts, by its name; each field has a
        leading axis of routers, in the order of `StackConfig.routers`.
      choices: of the same routers the experts of all tokens, [N, B, k, L]; empty unless asked for.
    """

    logits: jax.Array
    routers: dict[str, RouterStatistics]
    choices: dict[str, Choices]


class Transformer(nnx.Module):
    """T5 or Switch Transformer."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        self.token_embedding = Embedding(config, rngs)
        for stack in config.stacks:
            setattr(self, stack.name, Stack(config, stack, rngs))
        if not config.tie_embeddings:
            self.logits = parameters.truncated_normal(
                rngs,
                (config.embed_dim, config.num_embeddings),
                ("embed", "vocab"),
                config.scale / config.embed_dim,
            )

    def __call__(
        self,
        tokens: Mapping[str, jax.Array],
        segments: Mapping[str, jax.Array],
        *,
        key: jax.Array | None = None,
        with_choices: bool = False,
    ) -> Output:
        """Predicts each token of the last stack from those before it, and from the other stacks.

        Args:
          tokens: by the name of a stack the ids that it reads, [B, L] int32: of an encoder-decoder
            the inputs, and the targets shifted right.
          segments: of the same shapes, int32, the packed example that a token belongs to, counted
            from 1; 0 = padding.
          key: of training, for dropout and the routers' noise. None = evaluation: neither, and the
            capacity factor of evaluation.
          with_choices: whether the output has the choices of the routers, those of evaluation.
        """
        stacks = self.config.stacks
        keys = [None] * len(stacks) if key is None else list(jax.random.split(key, len(stacks)))
        embedded = self.token_embedding(*(tokens[s.name] for s in stacks))  # [B, L, D] each
        encoded: dict[str | None, Encoded] = {}
        routers: dict[str, RouterStatistics] = {}
        choices: dict[str, Choices] = {}
        for stack, x, stack_key in zip(stacks, embedded, keys, strict=True):
            own = Tokens(tokens[stack.name], segments[stack.name])
            x, found, _ = self._stack(stack.name)(
                x, own, encoded.get(stack.attends_to), key=stack_key, with_choices=with_choices
            )
            encoded[stack.name] = Encoded(x, own.segments)
            if found is not None:
                routers[stack.name] = found.statistics
                if found.choices is not None:
                    choices[stack.name] = found.choices
        return Output(self._logits(x), routers, choices)

    def encode(self, tokens: jax.Array, segments: jax.Array) -> jax.Array:
        """[B, M] int32 ids and segments -> [B, M, D], in evaluation.

        It is the output of the stack that the last one attends to.
        """
        (x,) = self.token_embedding(tokens)  # [B, M, D]
        return self._stack(self.config.encoded_stack.name)(x, Tokens(tokens, segments))[0]

    def init_decoding(
        self, memory: jax.Array, segments: jax.Array, beams: int, length: int
    ) -> DecodingState:
        """The state before the first token, for `beams` sequences of at most `length` tokens a row.

        `memory` [B, M, D] is from `encode`; segments [B, M] int32 are 1, or 0 for padding.
        """
        last = self._last
        keys_and_values = last.cross_keys_and_values(memory)

        def empty(of_memory: jax.Array) -> jax.Array:
            blocks, batch, _, inner = of_memory.shape
            shape = (blocks, batch, beams, length, inner)
            return constrain_batch(jnp.zeros(shape, memory.dtype), axis=1)

        return DecodingState(
            position_bias=last.position_bias(length),
            encoded=Encoded(None, segments),
            cross_cache=keys_and_values,
            cache=jax.tree.map(empty, keys_and_values),
        )

    def decode_step(
        self, tokens: jax.Array, valid: jax.Array, position: jax.Array, decoding: DecodingState
    ) -> tuple[jax.Array, DecodingState]:
        """Predicts the next token of each beam: logits [B, beams, V] float32, and the next state.

        Args:
          tokens: [B, beams] int32, the last token of each; at position 0 the id 0, which begins a
            sequence.
          valid: [B, beams] bool, False for a beam that has ended.
          position: scalar int32, the position of these tokens.
          decoding: the result of `init_decoding` or of the step before.
        """
        (x,) = self.token_embedding(tokens)  # [B, beams, D]
        of_beams = Tokens(tokens, valid.astype(jnp.int32))
        x, _, new = self._last(x, of_beams, decoding=decoding, position=position)  # [B, beams, D]

        def append(cache: jax.Array, new: jax.Array) -> jax.Array:  # new: [blocks, B, beams, H * K]
            return jax.lax.dynamic_update_slice_in_dim(
                cache, new[:, :, :, None], position, axis=3
            )  # [blocks, B, beams, L, H * K]

        cache = jax.tree.map(append, decoding.cache, new)
        return self._logits(x), decoding._replace(cache=cache)

    def reorder(self, decoding: DecodingState, beams: jax.Array) -> DecodingState:
        """The state in which beam i of row b continues beam beams[b, i]; [B, beams] int32."""
        index = beams[None, :, :, None, None]  # [1, B, beams, 1, 1]
        cache = jax.tree.map(lambda x: jnp.take_along_axis(x, index, axis=2), decoding.cache)
        return decoding._replace(cache=cache)

    def _stack(self, name: str) -> Stack:
        return getattr(self, name)

    @property
    def _last(self) -> Stack:
        """The stack that makes the logits."""
        return self._stack(self.config.stacks[-1].name)

    def _logits(self, x: jax.Array) -> jax.Array:
        """[B, L, D] -> [B, L, V] float32."""
        with jax.named_scope("logits"):
            if self.config.tie_embeddings:
                return self.token_embedding.logits(x)
            kernel = self.logits[...].astype(x.dtype)  # [D, V]
            return jnp.einsum("bld,dv->blv", x, kernel, preferred_element_type=jnp.float32)
