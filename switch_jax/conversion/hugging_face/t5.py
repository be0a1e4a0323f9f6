"""T5, mT5 and Switch Transformers: their config.json and the names of their tensors."""

from typing import Any

from switch_jax.config import Config, ModelConfig
from switch_jax.conversion.hugging_face.family import (
    LOGITS,
    Family,
    Json,
    activation_dtype,
    dtypes,
)
from switch_jax.conversion.source import Copy, pop_copies, sparse_fields
from switch_jax.conversion.tensor_layout import Tensor, stacked_names
from switch_jax.moe import capacity_of
from switch_jax.train_step.loss import LossWeights
from switch_jax.utils.errors import UserError
from switch_jax.utils.fields import short_repr

# There is one table of tokens, under up to four names that may share their storage.
_TABLE = "shared.weight"
_TABLE_ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# Old T5 files hold it, and no layer reads it: cross-attention has no position bias.
_UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"

_ATTENTION = {"query": "q", "key": "k", "value": "v", "out": "o"}

# The decoder's first token is padding. Vocabularies with other ids are not exported.
_SPECIAL_TOKENS = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}

# What feed_forward_proj says in config.json, and its default.
_PROJECTIONS = ("relu", "gated-gelu")
_DEFAULT_PROJECTION = {"t5": "relu", "mt5": "gated-gelu"}

_SIZES = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
_EXPERT_SIZES = ("num_experts", "num_sparse_encoder_layers", "num_sparse_decoder_layers")
_SPARSE_STEPS = ("encoder_sparse_step", "decoder_sparse_step")


def _whole_numbers(config: Json) -> list[str]:
    if config["model_type"] != "switch_transformers":
        return [*_SIZES]
    return [*_SIZES, *_EXPERT_SIZES, *(name for name in _SPARSE_STEPS if name in config)]


def architecture(config: Json) -> dict[str, Any]:
    """See `Family`; not among the fields is what matters in training alone, and capacity."""
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
        **dtypes(activation_dtype=activation_dtype(config)),
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
    fields |= dtypes(router_dtype=config.get("router_dtype"))
    return fields | sparse_fields(theirs, num_layers)


def _activation(config: Json) -> str:
    """Returns the activation. Hugging Face, too, computes the GELU of gated-gelu by tanh."""
    default = _DEFAULT_PROJECTION.get(config["model_type"]) or config.get("dense_act_fn", "relu")
    name = config.get("feed_forward_proj", default)
    if name == "gelu_new" and config.get("is_gated_act"):
        name = "gated-gelu"
    if name not in _PROJECTIONS:
        raise UserError(f"the activation {short_repr(name)} is neither relu nor gated-gelu")
    return name


def _is_tied(config: Json) -> bool:
    """Says whether the logits are those of the token embedding, scaled by d_model^-0.5.

    T5 takes `tie_word_embeddings: false` for T5 1.1, which does not scale; since version 5 it
    writes that as `scale_decoder_outputs: false`. mT5 never scales, whatever its config says.
    """
    untied = False in (config.get("tie_word_embeddings"), config.get("scale_decoder_outputs"))
    return config["model_type"] != "mt5" and not untied


def _sparse_step(config: Json, stack: str, num_layers: int) -> int:
    """Returns the step in config.json, or the one computed from the number of sparse layers.

    If that number is 0, Hugging Face's step is the number of layers: one layer has experts.
    """
    number = config[f"num_sparse_{stack}_layers"]
    return config.get(f"{stack}_sparse_step", num_layers // number if number else num_layers)


def _sparse_layers(num_layers: int, step: int) -> list[int]:
    """Lists the layers that have experts in Hugging Face's model, from 0; none for a step of 0."""
    return [i for i in range(num_layers) if step == 1 or (step and i % step == 1)]


def _config_json(config: Config, step: int, model_type: str) -> dict[str, Any]:
    """See `Family`. The capacity of an expert follows from the length of the run's inputs."""
    model = config.model
    if model_type == "mt5" and model.tie_embeddings:
        raise UserError(
            "--model_type=mt5: Hugging Face's mT5 never scales the decoder's output, and a model "
            "with tie_embeddings = True does"
        )
    written: dict[str, Any] = {
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
        **_SPECIAL_TOKENS,
    }
    if model.num_experts:
        written |= _switch_fields(config, step)
    elif model.activation in _PROJECTIONS:
        written["feed_forward_proj"] = model.activation
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


def _tensor_names(model: ModelConfig) -> dict[str, Any]:
    """See `Family`; feed-forward layers are `DenseReluDense` in T5, `mlp` in Switch."""
    theirs = {"token_embedding/embedding": "shared", "logits": "lm_head"}
    dense = "mlp" if model.num_experts else "DenseReluDense"
    kernels = {"wi_0": "wi" if model.activation == "relu" else "wi_0", "wi_1": "wi_1", "wo": "wo"}
    for stack, last in (("encoder", 1), ("decoder", 2)):  # the feed-forward layer's number
        layer = f"{stack}.block.{{layer}}.layer"
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"
        of_stack = {
            "relative_position_bias/embedding": bias,
            "final_norm/scale": f"{stack}.final_layer_norm",
            "self_attention_norm/scale": f"{layer}.0.layer_norm",
            "cross_attention_norm/scale": f"{layer}.1.layer_norm",
            "feed_forward_norm/scale": f"{layer}.{last}.layer_norm",
            "feed_forward/router": f"{layer}.{last}.mlp.router.classifier",
        }
        for ours, kernel in _ATTENTION.items():
            of_stack[f"self_attention/{ours}"] = f"{layer}.0.SelfAttention.{kernel}"
            of_stack[f"cross_attention/{ours}"] = f"{layer}.1.EncDecAttention.{kernel}"
        for ours, kernel in kernels.items():
            of_stack[f"feed_forward/{ours}"] = f"{layer}.{last}.{dense}.{kernel}"
            of_stack[f"experts/{ours}"] = f"{layer}.{last}.mlp.experts.expert_{{expert}}.{kernel}"
        theirs |= {f"{stack}/{ours}": name for ours, name in of_stack.items()}
    named = {ours: f"{name}.weight" for ours, name in theirs.items()}
    return stacked_names(model, named, lambda name: not name.endswith(("/scale", "/embedding")))


def _pop_copies(config: Json, tensors: dict[str, Tensor]) -> list[Copy]:
    tensors.pop(_UNUSED, None)
    one_table = "a model of ours has one table for the encoder and the decoder"
    copies = pop_copies(tensors, _TABLE, _TABLE_ALIASES, one_table)
    if _is_tied(config):
        tied = "config.json says that the logits are tied to the table"
        copies += pop_copies(tensors, _TABLE, [LOGITS], tied)
    elif LOGITS not in tensors:
        raise UserError(
            f"it has no {LOGITS}, so its logits are those of the token table, and by config.json "
            "they are not scaled by d_model^-0.5: a model of ours has either both or neither"
        )
    return copies


def _table_names(model: ModelConfig) -> tuple[str, ...]:
    """Hugging Face's Switch Transformers tie the tables of both stacks only with the logits."""
    return _TABLE_ALIASES if model.num_experts and not model.tie_embeddings else ()


T5 = Family(
    is_sequence_to_sequence=True,
    whole_numbers=_whole_numbers,
    architecture=architecture,
    config_json=_config_json,
    generation=_SPECIAL_TOKENS,
    tensor_names=_tensor_names,
    pop_copies=_pop_copies,
    table_names=_table_names,
)
