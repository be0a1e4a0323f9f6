"""T5 and Switch Transformer encoder-decoders in Flax NNX."""

from switch_jax.config import ModelConfig
from switch_jax.model.functional import (
    abstract_parameters,
    bind,
    cast_and_gather_once,
    init_parameters,
    logical_axes,
    model_inputs,
)
from switch_jax.model.transformer import Transformer
