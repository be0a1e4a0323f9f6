"""The sizes of a Transformer, and what all of its layers have."""

import dataclasses
from typing import Annotated

from switch_jax.utils.fields import Checked, Factor, OneOf, Range, Rate, Use

Size = Annotated[int, Range(1, 2**20)]
Dtype = Annotated[str, OneOf("bfloat16", "float32"), Use.TUNABLE]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig(Checked):
    """The sizes of the Transformer without its experts, and what all of its layers have.

    Attributes:
      num_embeddings: V, rows of the embedding table; at least the ids of the vocabulary.
      embed_dim: D, width of the model.
      mlp_dim: F, width of the dense feed-forward layers.
      activation: activation of feed-forward layers and experts. 'relu' (T5 1.0); or, with two input
        projections, of which one is the other's gate (Shazeer 2020, arXiv 2002.05202): 'gated-gelu'
        (T5 1.1), 'swiglu' (the gate through SiLU) or 'reglu' (through ReLU).
      tie_embeddings: the logits reuse the token embedding, scaled by D^-0.5 (T5 1.0).
      dropout_rate: dropout on embeddings, attention, sublayer outputs and dense hidden activations.
      scale: s, where initial weights are truncated normal with variance s / fan-in (section 2.4):
        1.0 for T5, 0.1 for Switch.
      norm_epsilon: RMSNorm's.
      activation_dtype: dtype of activations, 'bfloat16' or 'float32'; parameters are float32.
    """

    num_embeddings: Annotated[int, Range(1, 2**24)]
    embed_dim: Size
    mlp_dim: Size
    activation: Annotated[str, OneOf("relu", "gated-gelu", "swiglu", "reglu")] = "relu"
    tie_embeddings: bool = True
    dropout_rate: Annotated[Rate, Use.TRAINING] = 0.0
    scale: Annotated[Factor, Use.TRAINING] = 1.0
    norm_epsilon: Rate = 1e-6
    activation_dtype: Dtype = "bfloat16"
