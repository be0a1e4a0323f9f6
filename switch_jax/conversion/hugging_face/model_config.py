"""Translates config.json of a Hugging Face model to our `ModelConfig`, and back."""

from typing import Any, NamedTuple

from etils import epath

from switch_jax.config import Config, ModelConfig
from switch_jax.conversion.hugging_face.family import Family
from switch_jax.conversion.hugging_face.qwen3 import QWEN3
from switch_jax.conversion.hugging_face.t5 import T5
from switch_jax.conversion.source import model_differences, read_json
from switch_jax.storage import is_file
from switch_jax.utils.differences import listed
from switch_jax.utils.errors import UserError
from switch_jax.utils.fields import short_repr

CONFIG = "config.json"


class ModelType(NamedTuple):
    """What a model_type in config.json means: the class in transformers, and its models."""

    architecture: str
    family: Family
    has_experts: bool

    @property
    def kind(self) -> tuple[bool, bool]:
        """Whether its models have an encoder, and whether they have experts."""
        return self.family.is_sequence_to_sequence, self.has_experts


# Of those of a kind the first is written where nobody says which.
MODEL_TYPES = {
    "switch_transformers": ModelType("SwitchTransformersForConditionalGeneration", T5, True),
    "t5": ModelType("T5ForConditionalGeneration", T5, False),
    "mt5": ModelType("MT5ForConditionalGeneration", T5, False),
    "qwen3_moe": ModelType("Qwen3MoeForCausalLM", QWEN3, True),
    "qwen3": ModelType("Qwen3ForCausalLM", QWEN3, False),
}


def read_config(folder: epath.Path) -> dict[str, Any]:
    """Reads config.json; raises UserError if it is damaged, or of another architecture."""
    file = folder / CONFIG
    if not is_file(file):
        raise UserError(f"{folder} is not the folder of a model: it has no {CONFIG}")
    config = read_json(file)
    if "model_type" not in config:
        raise UserError(
            f"{folder} is neither a run nor a model: it lacks the config.gin of a run, and its "
            f"{CONFIG} the model_type of a Hugging Face model"
        )
    model_type = config["model_type"]
    if not isinstance(model_type, str) or model_type not in MODEL_TYPES:
        raise UserError(
            f"{file} describes a model of the type {short_repr(model_type)}; those that can be "
            f"converted are {', '.join(MODEL_TYPES)}"
        )
    for name in MODEL_TYPES[model_type].family.whole_numbers(config):
        if type(config.get(name)) is not int:
            raise UserError(f"{file}: {name} is {short_repr(config.get(name))}, no whole number")
    return config


def config_json(config: Config, step: int, model_type: str | None = None) -> dict[str, Any]:
    """Makes config.json for the model that a run of ours has after `step` steps.

    `model_type` is one of `MODEL_TYPES`; None takes the first that fits the model. Raises
    UserError if Hugging Face's class cannot express the model.
    """
    model = config.model
    if model.load_balance == "bias":
        raise UserError("LOAD_BALANCE = 'bias': routers of Hugging Face have no bias")
    fitting = fitting_types(model)
    model_type = model_type or fitting[0]
    architecture, family, _ = MODEL_TYPES[model_type]
    if model_type not in fitting:
        encoder, experts = ("with" if x else "without" for x in MODEL_TYPES[model_type].kind)
        raise UserError(
            f"--model_type={model_type} is for a model {encoder} an encoder and {experts} experts, "
            f"and this one has NUM_ENCODER_LAYERS = {model.num_encoder_layers} and NUM_EXPERTS = "
            f"{model.num_experts}: take {' or '.join(fitting)}"
        )
    written = {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": model.num_embeddings,
        "dtype": "float32",
        "activation_dtype": model.activation_dtype,  # which transformers keeps, and does not use
        **family.config_json(config, step, model_type),
    }
    # What config.json cannot say does not come back.
    if found := model_differences(type(model)(**family.architecture(written)), model):
        raise UserError(f"{architecture} of Hugging Face cannot be this model: {listed(found)}")
    return written


def fitting_types(model: ModelConfig) -> list[str]:
    """Returns the model_types of models with an encoder, and with experts, where this one is so."""
    kind = model.stacks[-1].attends_to is not None, model.num_experts > 0
    return [name for name, its in MODEL_TYPES.items() if its.kind == kind]
