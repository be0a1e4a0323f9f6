"""Translates config.json of a Hugging Face model to our `ModelConfig`, and back."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from switch_jax.config import Config, ModelConfig
from switch_jax.conversion.source import model_differences, read_json, sparse_fields
from switch_jax.moe import capacity_of
from switch_jax.storage import is_file
from switch_jax.train_step.loss import LossWeights
from switch_jax.utils.differences import listed
from switch_jax.utils.errors import UserError
from switch_jax.utils.fields import short_repr

CONFIG = "config.json"
ARCHITECTURES = {
    "switch_transformers": "SwitchTransformersForConditionalGeneration",
    "t5": "T5ForConditionalGeneration",
    "mt5": "MT5ForConditionalGeneration",
}
# What feed_forward_proj says in config.json, and its default.
_PROJECTIONS = ("relu", "gated-gelu")
_DEFAULT_PROJECTION = {"t5": "relu", "mt5": "gated-gelu"}

# The decoder's first token is padding. Vocabularies with other ids are not exported.
SPECIAL_TOKENS = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}

_SIZES = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
_EXPERT_SIZES = ("num_experts", "num_sparse_encoder_layers", "num_sparse_decoder_layers")
_SPARSE_STEPS = ("encoder_sparse_step", "decoder_sparse_step")


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
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise UserError(
            f"{file} describes a model of the type {short_repr(model_type)}; those that can be "
            f"converted are {', '.join(ARCHITECTURES)}"
        )
    sizes = list(_SIZES)
    if model_type == "switch_transformers":
        sizes += [*_EXPERT_SIZES, *(name for name in _SPARSE_STEPS if name in config)]
    for name in sizes:
        if type(config.get(name)) is not int:
            raise UserError(f"{file}: {name} is {short_repr(config.get(name))}, no whole number")
    return config


def architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `ModelConfig` on which the tensors and their meaning depend.

    Dtypes are among them if config.json names them, but not what matters in training alone:
    capacity, dropout, jitter, initialisation. Raises UserError if our model cannot express it.
    """
    layers = config["num_layers"]
    if layers < 1:
        raise UserError(f"num_layers is {layers}: T5 and Switch Transformers have an encoder")
    decoder_layers = config.get("num_decoder_layers")
    fields = {
        "num_embeddings": config["vocab_size"],
        "embed_dim": config["d_model"],
        "mlp_dim": config["d_ff"],
        "head_dim": config["d_kv"],
        "num_heads": config["num_heads"],
        "num_encoder_layers": layers,
        "num_decoder_layers": layers if decoder_layers is None else decoder_layers,
        "activation": _activation(config),
        "tie_embeddings": _is_tied(config),
        "relative_position_buckets": config.get("relative_attention_num_buckets", 32),
        "relative_position_max_distance": config.get("relative_attention_max_distance", 128),
        "norm_epsilon": config.get("layer_norm_epsilon", 1e-6),
        "num_experts": 0,
        **_dtypes(activation_dtype=_activation_dtype(config)),
    }
    if config["model_type"] != "switch_transformers":
        return fields
    fields["num_experts"] = config["num_experts"]
    if config.get("router_bias"):
        raise UserError("router_bias is true: our routers, as the paper's, have no bias")
    stacks = ModelConfig(**fields, sparse_step=1).stacks  # it bounds the layers
    num_layers = {stack.name: stack.num_layers for stack in stacks}
    steps = {stack: _sparse_step(config, stack, number) for stack, number in num_layers.items()}
    theirs = {stack: _sparse_layers(num_layers[stack], step) for stack, step in steps.items()}
    fields |= {"expert_mlp_dim": config["d_ff"]}
    fields |= _dtypes(router_dtype=config.get("router_dtype"))
    return fields | sparse_fields(theirs, num_layers)


def _activation_dtype(config: Mapping[str, Any]) -> Any:
    """Returns the dtype of the run it was written from, or that of the tensors."""
    names = ("activation_dtype", "dtype", "torch_dtype")  # the last one before version 5
    return next((config[name] for name in names if name in config), None)


def _dtypes(**fields: Any) -> dict[str, str]:
    """Returns the dtypes that a model of ours may have."""
    return {name: dtype for name, dtype in fields.items() if dtype in ("bfloat16", "float32")}


def _activation(config: Mapping[str, Any]) -> str:
    """Returns the activation. Hugging Face, too, computes the GELU of gated-gelu by tanh."""
    default = _DEFAULT_PROJECTION.get(config["model_type"]) or config.get("dense_act_fn", "relu")
    name = config.get("feed_forward_proj", default)
    if name == "gelu_new" and config.get("is_gated_act"):
        name = "gated-gelu"
    if name not in _PROJECTIONS:
        raise UserError(f"the activation {short_repr(name)} is neither relu nor gated-gelu")
    return name


def _is_tied(config: Mapping[str, Any]) -> bool:
    """Says whether the logits are those of the token embedding, scaled by d_model^-0.5.

    T5 takes `tie_word_embeddings: false` for T5 1.1, which does not scale; since version 5 it
    writes that as `scale_decoder_outputs: false`. mT5 never scales, whatever its config says.
    """
    untied = False in (config.get("tie_word_embeddings"), config.get("scale_decoder_outputs"))
    return config["model_type"] != "mt5" and not untied


def _sparse_step(config: Mapping[str, Any], stack: str, num_layers: int) -> int:
    """Returns the step in config.json, or the one computed from the number of sparse layers.

    If that number is 0, Hugging Face's step is the number of layers: one layer has experts.
    """
    number = config[f"num_sparse_{stack}_layers"]
    return config.get(f"{stack}_sparse_step", num_layers // number if number else num_layers)


def _sparse_layers(num_layers: int, step: int) -> list[int]:
    """Lists the layers that have experts in Hugging Face's model, from 0; none for a step of 0."""
    return [i for i in range(num_layers) if step == 1 or (step and i % step == 1)]


def config_json(config: Config, step: int, model_type: str | None = None) -> dict[str, Any]:
    """Makes config.json for the model that a run of ours has after `step` steps.

    `model_type` is one of `ARCHITECTURES`, by default 'switch_transformers' or 't5'. The capacity
    of an expert follows from the length of the run's inputs: there a group is a row. Raises
    UserError if Hugging Face's class cannot express the model.
    """
    model = config.model
    fitting = "switch_transformers" if model.num_experts else "t5"
    model_type = model_type or fitting
    is_sparse = model_type == "switch_transformers"
    if model.stacks[-1].attends_to is None:
        raise UserError(
            f"NUM_ENCODER_LAYERS = {model.num_encoder_layers}: {ARCHITECTURES[model_type]} of "
            "Hugging Face has an encoder"
        )
    if is_sparse != (model.num_experts > 0):
        raise UserError(
            f"--model_type={model_type} is for a model {'with' if is_sparse else 'without'} "
            f"experts, and this one has NUM_EXPERTS = {model.num_experts}"
        )
    if model_type == "mt5" and model.tie_embeddings:
        raise UserError(
            "--model_type=mt5: Hugging Face's mT5 never scales the decoder's output, and a model "
            "with tie_embeddings = True does"
        )
    written = {
        "architectures": [ARCHITECTURES[model_type]],
        "model_type": model_type,
        "vocab_size": model.num_embeddings,
        "d_model": model.embed_dim,
        "d_ff": model.mlp_dim,
        "d_kv": model.head_dim,
        "num_heads": model.num_heads,
        "num_layers": model.num_encoder_layers,
        "num_decoder_layers": model.num_decoder_layers,
        "relative_attention_num_buckets": model.relative_position_buckets,
        "relative_attention_max_distance": model.relative_position_max_distance,
        "layer_norm_epsilon": model.norm_epsilon,
        "dropout_rate": model.dropout_rate,
        "tie_word_embeddings": model.tie_embeddings,
        "is_encoder_decoder": True,
        "dtype": "float32",
        "activation_dtype": model.activation_dtype,  # which transformers keeps, and does not use
        **SPECIAL_TOKENS,
    }
    if is_sparse:
        written |= _switch_fields(config, step)
    elif model.activation in _PROJECTIONS:
        written["feed_forward_proj"] = model.activation
    # What config.json cannot say does not come back.
    if found := model_differences(type(model)(**architecture(written)), model):
        raise UserError(
            f"{ARCHITECTURES[model_type]} of Hugging Face cannot be this model: {listed(found)}"
        )
    return written


def _switch_fields(config: Config, step: int) -> dict[str, Any]:
    model, weights = config.model, LossWeights.at(step, config.loss)
    by_stack: dict[str, int] = {}
    for stack in model.stacks:
        number, sparse = stack.num_layers, list(stack.sparse_layers)
        every = next((s for s in range(number + 1) if _sparse_layers(number, s) == sparse), None)
        if every is None:
            raise UserError(
                f"the layers {short_repr(sparse)} of the {stack.name} have experts, and Hugging "
                "Face has them in all layers, in one of each few from layer 1 on, or in none"
            )
        by_stack[f"num_sparse_{stack.name}_layers"] = len(sparse)
        by_stack[f"{stack.name}_sparse_step"] = every
    return {
        "num_experts": model.num_experts,
        **by_stack,
        "expert_capacity": capacity_of(
            model, config.data.task_feature_lengths["inputs"], model.eval_expert_capacity_factor
        ),
        "dense_act_fn": "relu",
        "router_bias": False,
        "router_dtype": model.router_dtype,
        "router_jitter_noise": model.jitter_noise,
        "router_aux_loss_coef": float(weights.load_balance_loss),
        "router_z_loss_coef": float(weights.router_z_loss),
    }
