"""The Transformer of a model's stacks, for training and for decoding step by step."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from switch_jax.config import ModelConfig
from switch_jax.kernels.by_platform import matmul_for_logits
from switch_jax.model import parameters
from switch_jax.model.attention import Encoded, KeysAndValues
from switch_jax.model.layers import Embedding
from switch_jax.model.stack import DecodingState, Stack
from switch_jax.moe import Choices, RouterStatistics, Tokens
from switch_jax.partitioning.mesh import constrain_batch, gather_activations


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
            encoded[stack.name] = Encoded(gather_activations(x), own.segments)
            if found is not None:
                routers[stack.name] = found.statistics
                if found.choices is not None:
                    choices[stack.name] = found.choices
        return Output(self._logits(x), routers, choices)

    def encode(
        self, tokens: Mapping[str, jax.Array], segments: Mapping[str, jax.Array]
    ) -> dict[str | None, Encoded]:
        """The outputs [B, M, D] of all stacks but the last, in evaluation; arguments as there."""
        encoded: dict[str | None, Encoded] = {}
        for stack in self.config.stacks[:-1]:
            own = Tokens(tokens[stack.name], segments[stack.name])
            (x,) = self.token_embedding(own.ids)  # [B, M, D]
            x = self._stack(stack.name)(x, own, encoded.get(stack.attends_to))[0]
            encoded[stack.name] = Encoded(x, own.segments)
        return encoded

    def init_decoding(
        self,
        tokens: Mapping[str, jax.Array],
        segments: Mapping[str, jax.Array],
        beams: int,
        length: int,
    ) -> DecodingState:
        """The state before the first new token, for `beams` sequences of at most `length` a row.

        Tokens and segments are as for `__call__`, in evaluation. Those of the last stack are
        prompts [B, P] of any lengths; they end at the right, so that the new tokens of all rows
        stand at the same positions. No expert drops a token of a prompt. Where the last stack has
        none, decoding begins from nothing.
        """
        last, of_last = self._last, self.config.stacks[-1]
        attended = self.encode(tokens, segments).get(of_last.attends_to)
        prompt = segments.get(of_last.name)

        def read(tokens: jax.Array, segments: jax.Array) -> list[KeysAndValues | None]:
            (x,) = self.token_embedding(tokens)  # [B, P, D]
            return last(x, Tokens(tokens, segments), attended, is_prompt=True)[2]

        def with_room(new: jax.Array) -> jax.Array:
            """[blocks, B, P, H * K], of the prompts -> [blocks, B, beams, P + L, H * K]."""
            blocks, batch, _, inner = new.shape
            cache = jnp.zeros((blocks, batch, beams, width + length, inner), new.dtype)
            if width:
                cache = cache.at[:, :, :, :width].set(new[:, :, None])
            return constrain_batch(cache, axis=1)

        cross_cache: list[KeysAndValues | None] | None = None
        if attended is not None and attended.x is not None:
            cross_cache = last.cross_keys_and_values(attended.x)
        if prompt is None:
            width, one = 0, jnp.zeros((len(next(iter(segments.values()))), 1), jnp.int32)
            new = jax.eval_shape(read, one, one)
        else:
            width, new = prompt.shape[1], read(tokens[of_last.name], prompt)
        return DecodingState(
            position_bias=last.position_bias(width + length),
            prompt=prompt,
            encoded=None if attended is None else Encoded(None, attended.segments),
            cross_cache=cross_cache or [None] * len(new),
            cache=jax.tree.map(with_room, new),
        )

    def decode_step(
        self, tokens: jax.Array, valid: jax.Array, position: jax.Array, decoding: DecodingState
    ) -> tuple[jax.Array, DecodingState]:
        """Predicts the next token of each beam: logits [B, beams, V] float32, and the next state.

        Args:
          tokens: [B, beams] int32, the last token of each; at position 0 that of its prompt or,
            without one, the id 0, which begins a sequence.
          valid: [B, beams] bool, False for a beam that has ended.
          position: scalar int32, the position of these tokens behind the prompt.
          decoding: the result of `init_decoding` or of the step before.
        """
        if decoding.prompt is not None:
            position = position + decoding.prompt.shape[1]
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
            x = gather_activations(x)
            if self.config.tie_embeddings:
                return self.token_embedding.logits(x)
            kernel = self.logits[...].astype(x.dtype)  # [D, V]
            return matmul_for_logits(x, kernel, "dv")
