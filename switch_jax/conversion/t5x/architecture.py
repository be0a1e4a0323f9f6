"""Finds the sizes of a model from the shapes of its tensors, as T5X saves no config with them."""

import re
from typing import Any

from switch_jax.conversion.source import sparse_fields
from switch_jax.conversion.t5x.tensor_names import LOGITS, TABLE, relative_bias
from switch_jax.conversion.tensor_layout import Tensor
from switch_jax.utils.errors import UserError


def architecture(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Returns the fields of `ModelConfig` that tensors determine, named as by `tensor_names`.

    They do not determine the largest distance of the relative bias and the epsilon of the norms,
    for which `ModelConfig` has T5's. A gated feed-forward layer is taken for one with GELU,
    as in T5 1.1. Raises UserError if a tensor is missing, or our model cannot express it.
    """
    layers = {stack: _layers(tensors, stack, "") for stack in ("encoder", "decoder")}
    sparse = {stack: _layers(tensors, stack, "mlp/expert/") for stack in ("encoder", "decoder")}
    rows, embed_dim = _shape(tensors, TABLE, "embeddings", "features")
    heads, buckets = _shape(tensors, relative_bias("encoder"), "heads", "buckets")
    query = "encoder/layers_0/attention/query/kernel"
    _, joined = _shape(tensors, query, "features", "heads x head_dim")
    gated = any("/wi_0/" in name for name in tensors)
    wi = "wi_0/kernel" if gated else "wi/kernel"
    dense = [n for n in layers["encoder"] if n not in sparse["encoder"]]
    fields = {
        "num_embeddings": rows,
        "embed_dim": embed_dim,
        "head_dim": joined // heads,
        "num_heads": heads,
        "num_encoder_layers": len(layers["encoder"]),
        "num_decoder_layers": len(layers["decoder"]),
        "activation": "gated-gelu" if gated else "relu",
        "tie_embeddings": LOGITS not in tensors,
        "relative_position_buckets": buckets,
        "num_experts": 0,
    }
    first = next((f"{s}/layers_{n}/mlp/expert/{wi}" for s in sparse for n in sparse[s]), None)
    if first is not None:
        _, expert_mlp_dim = _shape(tensors, f"{first}/0", "features", "mlp_dim")
        experts = sum(name.startswith(f"{first}/") for name in tensors)
        fields |= {"num_experts": experts, "expert_mlp_dim": expert_mlp_dim}
        fields |= sparse_fields(sparse, {stack: len(layers[stack]) for stack in layers})
    if dense:
        kernel = f"encoder/layers_{dense[0]}/mlp/{wi}"
        _, fields["mlp_dim"] = _shape(tensors, kernel, "features", "mlp_dim")
    else:
        fields["mlp_dim"] = fields["expert_mlp_dim"]
    return fields


def _layers(tensors: dict[str, Tensor], stack: str, part: str) -> list[int]:
    """Lists the numbers of a stack's layers that have this part."""
    pattern = re.compile(rf"{stack}/layers_(\d+)/{part}")
    return sorted({int(match[1]) for name in tensors if (match := pattern.match(name))})


def _shape(tensors: dict[str, Tensor], name: str, *axes: str) -> tuple[int, ...]:
    if name not in tensors:
        raise UserError(f"{name} is missing: every encoder-decoder of T5X has it")
    shape = tensors[name].shape
    if len(shape) != len(axes):
        raise UserError(f"{name} is {list(shape)} and should be [{', '.join(axes)}]")
    return shape
