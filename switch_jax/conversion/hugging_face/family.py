"""What the families of Hugging Face's models differ in, and what their config.json files share."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from switch_jax.config import Config, ModelConfig
from switch_jax.conversion.source import Copy
from switch_jax.conversion.tensor_layout import Tensor

LOGITS = "lm_head.weight"

Json = Mapping[str, Any]  # of config.json


@dataclasses.dataclass(frozen=True)
class Family:
    """Models that describe themselves in config.json, and name their tensors, in the same way.

    Attributes:
      is_sequence_to_sequence: whether they are encoder-decoders, or decoders alone.
      whole_numbers: the names in config.json that must have a whole number.
      architecture: from config.json the fields of `ModelConfig` on which the tensors and their
        meaning depend, and dtypes where it names them. Raises UserError if our model cannot express
        it.
      config_json: from a run's config, its step and a model_type, what config.json says of it that
        families say in different ways.
      generation: what generation_config.json says.
      tensor_names: the `stacked_names` of a model.
      pop_copies: from config.json and the opened tensors. It removes those that equal others, which
        it returns, and those that nothing reads. Raises UserError if our model cannot have them.
      table_names: the names, beside its own, under which the table of tokens is written.
    """

    is_sequence_to_sequence: bool
    whole_numbers: Callable[[Json], Sequence[str]]
    architecture: Callable[[Json], dict[str, Any]]
    config_json: Callable[[Config, int, str], dict[str, Any]]
    generation: dict[str, int]
    tensor_names: Callable[[ModelConfig], dict[str, Any]]
    pop_copies: Callable[[Json, dict[str, Tensor]], list[Copy]]
    table_names: Callable[[ModelConfig], Sequence[str]]


def dtypes(**fields: Any) -> dict[str, str]:
    """Returns the dtypes that a model of ours may have."""
    return {name: dtype for name, dtype in fields.items() if dtype in ("bfloat16", "float32")}


def activation_dtype(config: Json) -> Any:
    """Returns the dtype of the run it was written from, or that of the tensors."""
    names = ("activation_dtype", "dtype", "torch_dtype")  # the last one before version 5
    return next((config[name] for name in names if name in config), None)
