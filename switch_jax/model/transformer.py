"""The encoder-decoder."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from switch_jax.model import parameters
from switch_jax.model.config import ModelConfig
from switch_jax.model.layers import Embedding
from switch_jax.model.stack import Stack
from switch_jax.moe.layer import RouterStatistics


class Output(NamedTuple):
    """What the model returns.

    Attributes:
      logits: [B, L, V] float32.
      encoder, decoder: statistics of the routers, a leading axis of Switch layers on each field;
        None in a dense model.
    """

    logits: jax.Array
    encoder: RouterStatistics | None
    decoder: RouterStatistics | None


class Transformer(nnx.Module):
    """T5 or Switch Transformer."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        self.token_embedding = Embedding(config, rngs)
        self.encoder = Stack(config, config.num_encoder_layers, decoder=False, rngs=rngs)
        self.decoder = Stack(config, config.num_decoder_layers, decoder=True, rngs=rngs)
        if not config.tie_embeddings:
            self.logits = parameters.truncated_normal(
                rngs,
                (config.d_model, config.vocab_size),
                ("embed", "vocab"),
                config.init_scale / config.d_model,
            )

    def __call__(
        self,
        encoder_tokens: jax.Array,
        decoder_input_tokens: jax.Array,
        encoder_segments: jax.Array,
        decoder_segments: jax.Array,
        *,
        deterministic: bool,
        key: jax.Array | None = None,
    ) -> Output:
        """Predicts each target token from the inputs and the target tokens before it.

        Args:
          encoder_tokens: [B, M] int32 ids.
          decoder_input_tokens: [B, L] int32 ids, the targets shifted right.
          encoder_segments, decoder_segments: [B, M], [B, L] int32, which packed example a token is
            of, counted from 1; 0 = padding.
          deterministic: True = evaluation: no dropout, no jitter, evaluation capacity.
          key: for dropout and jitter in training.
        """
        encoder_key, decoder_key = (None, None) if key is None else jax.random.split(key)
        inputs, targets = self.token_embedding(encoder_tokens, decoder_input_tokens)
        memory, encoder_statistics = self.encoder(
            inputs,
            encoder_segments,
            deterministic=deterministic,
            key=encoder_key,
        )
        x, decoder_statistics = self.decoder(
            targets,
            decoder_segments,
            memory,
            encoder_segments,
            deterministic=deterministic,
            key=decoder_key,
        )
        return Output(self._logits(x), encoder_statistics, decoder_statistics)

    def _logits(self, x: jax.Array) -> jax.Array:
        with jax.named_scope("logits"):
            if self.config.tie_embeddings:
                return self.token_embedding.logits(x)
            kernel = self.logits[...].astype(x.dtype)
            return jnp.einsum("bld,dv->blv", x, kernel, preferred_element_type=jnp.float32)
