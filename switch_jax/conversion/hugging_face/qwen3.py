"""Qwen3 and Qwen3-MoE, decoders alone: their config.json and the names of their tensors.

With `num_experts_per_tok` 1, `norm_topk_prob` false and `decoder_sparse_step` 2 a Qwen3-MoE is a
Switch Transformer without an encoder.
"""

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
from switch_jax.train_step.loss import LossWeights
from switch_jax.utils.errors import UserError
from switch_jax.utils.fields import short_repr

_TABLE = "model.embed_tokens.weight"

# The names of fields of `ModelConfig` that are whole numbers.
_SIZES = {
    "num_embeddings": "vocab_size",
    "embed_dim": "hidden_size",
    "mlp_dim": "intermediate_size",
    "num_decoder_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
}
_EXPERT_SIZES = {
    "num_selected_experts": "num_experts_per_tok",
    "expert_mlp_dim": "moe_intermediate_size",
}
_OPTIONAL_SIZES = ("head_dim", "decoder_sparse_step", "max_position_embeddings")
_OPTIONAL_BOOLS = ("norm_topk_prob", "tie_word_embeddings")

# What our model cannot have otherwise.
_FIXED = {"attention_bias": False, "hidden_act": "silu"}

# A text begins with id 0. If that were the padding, transformers would not train its row of the
# table, and would not attend to it in generation without a mask: the padding is the end token.
_SPECIAL_TOKENS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}

_ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
_KERNELS = {"wi_0": "gate_proj", "wi_1": "up_proj", "wo": "down_proj"}


def _whole_numbers(config: Json) -> list[str]:
    found = [*_SIZES.values(), *(name for name in _OPTIONAL_SIZES if name in config)]
    if config["model_type"] == "qwen3":
        return found
    return [*found, _num_experts(config), *_EXPERT_SIZES.values()]


def _num_experts(config: Json) -> str:
    """The name of the number of experts, which is another one since version 5."""
    return "num_experts" if "num_experts" in config else "num_local_experts"


def _architecture(config: Json) -> dict[str, Any]:
    """See `Family`. No token is dropped in evaluation, and in training as few as with one expert.

    The logits may be tied to the table, but without our factor: then they are read as a copy of it.
    """
    _check(config)
    fields = {
        **{ours: config[theirs] for ours, theirs in _SIZES.items()},
        "head_dim": config.get("head_dim", _default_head_dim(config)),
        "num_encoder_layers": 0,
        "positions": "rotary",
        "rotary_base": _rotary_base(config),
        "qk_norm": True,
        "activation": "swiglu",
        "tie_embeddings": False,
        "norm_epsilon": config.get("rms_norm_eps", 1e-6),
        "num_experts": 0,
        **dtypes(activation_dtype=activation_dtype(config)),
    }
    if config["model_type"] == "qwen3":
        return fields
    (stack,) = ModelConfig(**fields).stacks  # it bounds the layers
    experts, chosen = config[_num_experts(config)], config["num_experts_per_tok"]
    layers = _sparse_layers(config, stack.num_layers)
    if not (experts and layers):
        return fields
    fields |= {"num_experts": experts, **{x: config[name] for x, name in _EXPERT_SIZES.items()}}
    normalized = config.get("norm_topk_prob", False)
    if chosen > 1:
        fields["normalize_gates"] = normalized
    elif normalized:
        raise UserError(
            "norm_topk_prob is true and num_experts_per_tok 1, so that each gate is 1: ours is the "
            "expert's probability"
        )
    fields |= {
        "train_expert_capacity_factor": 1.25 * chosen,
        "eval_expert_capacity_factor": float(experts),
        **dtypes(router_dtype=config.get("router_dtype")),
    }
    return fields | sparse_fields({stack.name: layers}, {stack.name: stack.num_layers})


def _default_head_dim(config: Json) -> int:
    """Returns what the classes of transformers take."""
    if config["model_type"] == "qwen3":
        return 128
    return config["hidden_size"] // max(1, config["num_attention_heads"])


def _check(config: Json) -> None:
    for name, value in _FIXED.items():
        if config.get(name, value) != value:
            raise UserError(f"{name} is {short_repr(config[name])}: a model of ours has {value!r}")
    for name in _OPTIONAL_BOOLS:
        if not isinstance(config.get(name, False), bool):
            raise UserError(f"{name} is {short_repr(config[name])}, neither true nor false")
    if config.get("use_sliding_window") and config.get("sliding_window"):
        raise UserError(
            f"use_sliding_window is true: attention of ours has no sliding_window of "
            f"{short_repr(config['sliding_window'])} tokens"
        )
    types = config.get("layer_types") or []
    if not isinstance(types, list) or any(kind != "full_attention" for kind in types):
        raise UserError(f"layer_types is {short_repr(types)}: ours are all 'full_attention'")


def _rotary_base(config: Json) -> Any:
    """Returns rope_theta, which stood beside rope_scaling before version 5."""
    name = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    rope = config.get(name) or {}
    kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else None
    if kind != "default":
        raise UserError(f"{name} is {short_repr(rope)}: ours has the rope_type 'default' alone")
    for key, value in rope.items():
        if isinstance(value, dict):
            raise UserError(
                f"{name} has {short_repr(value)} for {short_repr(key)}: ours has one rope_theta "
                "for all layers"
            )
    return rope.get("rope_theta", config.get("rope_theta", 10_000.0))


def _sparse_layers(config: Json, num_layers: int) -> list[int]:
    step, dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers") or []
    if not isinstance(dense, list):
        raise UserError(f"mlp_only_layers is {short_repr(dense)}, no list")
    return [i for i in range(num_layers) if step and (i + 1) % step == 0 and i not in dense]


def _config_json(config: Config, step: int, model_type: str) -> dict[str, Any]:
    """See `Family`. The most positions are those of the run's rows."""
    model = config.model
    written = {
        **{theirs: getattr(model, ours) for ours, theirs in _SIZES.items()},
        "num_key_value_heads": model.key_value_heads,
        "head_dim": model.head_dim,
        "max_position_embeddings": model.stacks[-1].length(config.data.task_feature_lengths),
        "rope_theta": model.rotary_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rotary_base},
        "rms_norm_eps": model.norm_epsilon,
        "attention_dropout": model.dropout_rate,
        "tie_word_embeddings": False,
        **_FIXED,
        **_SPECIAL_TOKENS,
    }
    return written | _expert_fields(config, step) if model.num_experts else written


def _expert_fields(config: Config, step: int) -> dict[str, Any]:
    model, weights = config.model, LossWeights.at(step, config.loss)
    (stack,) = model.stacks
    every = stack.num_layers // len(stack.sparse_layers)
    layers = range(every - 1, stack.num_layers, every)
    if tuple(layers) != stack.sparse_layers:
        every, layers = 1, range(stack.num_layers)
    return {
        "num_experts": model.num_experts,
        "num_experts_per_tok": model.num_selected_experts,
        "norm_topk_prob": model.normalize_gates and model.num_selected_experts > 1,
        "moe_intermediate_size": model.expert_hidden_dim,
        "decoder_sparse_step": every,
        "mlp_only_layers": [i for i in layers if i not in stack.sparse_layers],
        "router_aux_loss_coef": float(weights.load_balance_loss),
        "router_dtype": model.router_dtype,
    }


def _tensor_names(model: ModelConfig) -> dict[str, Any]:
    """See `Family`; the tensors of experts are one by one."""
    (stack,) = model.stacks
    layer = "model.layers.{layer}"
    theirs = {
        "self_attention_norm/scale": f"{layer}.input_layernorm",
        "feed_forward_norm/scale": f"{layer}.post_attention_layernorm",
        "self_attention/query_norm/scale": f"{layer}.self_attn.q_norm",
        "self_attention/key_norm/scale": f"{layer}.self_attn.k_norm",
        "feed_forward/router": f"{layer}.mlp.gate",
        "final_norm/scale": "model.norm",
    }
    for ours, kernel in _ATTENTION.items():
        theirs[f"self_attention/{ours}"] = f"{layer}.self_attn.{kernel}"
    for ours, kernel in _KERNELS.items():
        theirs[f"feed_forward/{ours}"] = f"{layer}.mlp.{kernel}"
        theirs[f"experts/{ours}"] = f"{layer}.mlp.experts.{{expert}}.{kernel}"
    named = {f"{stack.name}/{ours}": f"{name}.weight" for ours, name in theirs.items()}
    named |= {"token_embedding/embedding": _TABLE, "logits": LOGITS}
    return stacked_names(model, named, lambda name: not name.endswith(("/scale", "/embedding")))


def _pop_copies(config: Json, tensors: dict[str, Tensor]) -> list[Copy]:
    if not config.get("tie_word_embeddings") or _TABLE not in tensors:
        return []
    tied = "config.json says that the logits are tied to the table"
    copies = pop_copies(tensors, _TABLE, [LOGITS], tied)
    tensors[LOGITS] = tensors[_TABLE]
    return copies


QWEN3 = Family(
    is_sequence_to_sequence=False,
    whole_numbers=_whole_numbers,
    architecture=_architecture,
    config_json=_config_json,
    generation=_SPECIAL_TOKENS,
    tensor_names=_tensor_names,
    pop_copies=_pop_copies,
    table_names=lambda model: (),
)
