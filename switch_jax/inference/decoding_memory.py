"""Whether what decoding and scoring keep has room on the devices, before any of it is made."""

import jax.numpy as jnp

from switch_jax.config import ModelConfig
from switch_jax.errors import UserError
from switch_jax.hardware import GIB
from switch_jax.inference.decoding import DecodingConfig


def check_decoding(
    model: ModelConfig, config: DecodingConfig, batch_size: int, inputs: int, most: int
) -> None:
    """Raises UserError where keys, values and logits of decoding cannot lie on all devices.

    Args:
      model, config: what decodes.
      batch_size: B, rows at a time.
      inputs: M, tokens of the encoder.
      most: bytes that the devices hold in all, see `metrics.memory.memory_of`.
    """
    row = decoding_bytes(model, config, inputs)
    if batch_size * row > most:
        raise UserError(
            f"decoding {batch_size} rows of {config.max_tokens} tokens and {config.num_beams} "
            f"beams needs at least {_gib(batch_size * row)}, and the devices have {_gib(most)}: "
            f"set --batch_size to {max(1, most // row)} or less, or --max_tokens or --num_beams "
            "lower"
        )


def check_scoring(model: ModelConfig, batch_size: int, targets: int, most: int) -> None:
    """Raises UserError where the logits [B, L, V] float32 of a batch cannot lie on all devices.

    Args:
      model: what scores.
      batch_size: B, rows at a time.
      targets: L, tokens of the decoder.
      most: bytes that the devices hold in all, see `metrics.memory.memory_of`.
    """
    row = targets * model.num_embeddings * 4
    if batch_size * row > most:
        raise UserError(
            f"scoring {batch_size} rows of {targets} tokens needs at least "
            f"{_gib(batch_size * row)}, and the devices have {_gib(most)}: set --batch_size to "
            f"{max(1, most // row)} or less"
        )


def decoding_bytes(model: ModelConfig, config: DecodingConfig, inputs: int) -> int:
    """Bytes of a row: keys and values of the M inputs and of each beam's L tokens, its logits."""
    size = jnp.dtype(model.activation_dtype).itemsize
    token = 2 * model.num_decoder_layers * model.num_heads * model.head_dim * size
    beam = config.max_tokens * token + model.num_embeddings * 4
    return inputs * token + config.num_beams * beam


def _gib(size: int) -> str:
    return f"{size / GIB:,.1f} GiB"
