"""Predicted bytes of decoding, against the arrays themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from switch_jax.config import ModelConfig
from switch_jax.errors import UserError
from switch_jax.inference import DecodingConfig
from switch_jax.inference.decoding_memory import check_decoding, check_scoring, decoding_bytes
from switch_jax.model.transformer import Transformer

BATCH, INPUTS, TOKENS, BEAMS = 4, 6, 10, 3


def config(dtype):
    return ModelConfig(
        num_embeddings=128,
        embed_dim=16,
        mlp_dim=32,
        head_dim=4,
        num_heads=2,
        num_encoder_layers=2,
        num_decoder_layers=4,
        activation_dtype=dtype,
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_bytes_of_keys_and_values(dtype):
    model = config(dtype)

    def start():
        transformer = Transformer(model, nnx.Rngs(0))
        tokens = jnp.ones((BATCH, INPUTS), jnp.int32)
        memory = transformer.encode(tokens, tokens)
        decoding = transformer.init_decoding(memory, tokens, BEAMS, TOKENS)
        return decoding.cross_cache, decoding.cache

    arrays = jax.tree.leaves(jax.eval_shape(start))
    cached = sum(array.size * array.dtype.itemsize for array in arrays)
    logits = BATCH * BEAMS * model.num_embeddings * np.dtype(np.float32).itemsize
    predicted = decoding_bytes(model, DecodingConfig(TOKENS, num_beams=BEAMS), INPUTS)
    assert BATCH * predicted == cached + logits


def test_a_batch_that_is_too_large_is_refused_with_a_size_that_fits():
    model, decoding = config("float32"), DecodingConfig(TOKENS)
    row = decoding_bytes(model, decoding, INPUTS)
    memory = 7 * row + 1
    check_decoding(model, decoding, 7, INPUTS, memory)
    with pytest.raises(UserError, match="decoding 8 rows of 10 .* set batch_size to 7 or less"):
        check_decoding(model, decoding, 8, INPUTS, memory)
    memory = 5 * 8 * 128 * 4  # logits
    check_scoring(model, 5, 8, memory)
    with pytest.raises(UserError, match="scoring 6 rows of 8 .* set batch_size to 5 or less"):
        check_scoring(model, 6, 8, memory)
