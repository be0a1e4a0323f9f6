"""Whether decoding and scoring fit the memory of the devices, checked before they start."""

import jax.numpy as jnp

from switch_jax.config import ModelConfig
from switch_jax.errors import UserError
from switch_jax.inference.decoding import DecodingConfig
from switch_jax.inference.trained_model import TrainedModel
from switch_jax.metrics.memory import memory_of
from switch_jax.units import memory_size


def check_memory(trained: TrainedModel, *, decodes: bool, scores: bool) -> None:
    """Raises UserError if a batch does not fit in memory; all processes must call it together.

    Args:
      trained: the model.
      decodes, scores: what will be done with it.
    """
    model, batch_size = trained.config.model, trained.config.run.batch_size
    input_length, target_length = trained.config.data.lengths
    memory = memory_of(trained.mesh)
    if decodes:
        check_decoding(model, trained.decoding, batch_size, input_length, memory)
    if scores:
        check_scoring(model, batch_size, target_length, memory)


def check_decoding(
    model: ModelConfig, config: DecodingConfig, batch_size: int, input_length: int, memory: int
) -> None:
    """Raises UserError if keys, values and logits of decoding do not fit the devices' memory.

    Args:
      model, config: the model, and how it decodes.
      batch_size: B, rows decoded together.
      input_length: M, tokens of the encoder.
      memory: bytes of all devices together, see `metrics.memory.memory_of`.
    """
    row = decoding_bytes(model, config, input_length)
    if batch_size * row > memory:
        raise UserError(
            f"decoding {batch_size} rows of {config.max_tokens} tokens and {config.num_beams} "
            f"beams needs at least {memory_size(batch_size * row)}, and the devices have "
            f"{memory_size(memory)}: set {_fewer_rows(memory // row)}max_tokens or num_beams lower"
        )


def check_scoring(model: ModelConfig, batch_size: int, target_length: int, memory: int) -> None:
    """Raises UserError if the logits [B, L, V] float32 of a batch do not fit the devices' memory.

    Args:
      model: the model.
      batch_size: B, rows scored together.
      target_length: L, tokens of the decoder.
      memory: bytes of all devices together, see `metrics.memory.memory_of`.
    """
    row = target_length * model.num_embeddings * 4
    if batch_size * row > memory:
        raise UserError(
            f"scoring {batch_size} rows of {target_length} tokens needs at least "
            f"{memory_size(batch_size * row)}, and the devices have {memory_size(memory)}: set "
            f"{_fewer_rows(memory // row)}the length of targets lower"
        )


def decoding_bytes(model: ModelConfig, config: DecodingConfig, input_length: int) -> int:
    """Bytes of a row: keys and values of M inputs and of each beam's L tokens, and the logits."""
    size = jnp.dtype(model.activation_dtype).itemsize
    token = 2 * model.num_decoder_layers * model.num_heads * model.head_dim * size
    beam = config.max_tokens * token + model.num_embeddings * 4
    return input_length * token + config.num_beams * beam


def _fewer_rows(rows: int) -> str:
    return f"batch_size to {rows} or less, or " if rows else ""
