"""The names of T5X's tensors for each of our parameters.

They are those of models whose layers are not scanned, with one for each expert: see
`tensors.one_for_each`.
"""

from typing import Any

import jax
import numpy as np

from switch_jax.config import ModelConfig
from switch_jax.conversion.stacked import TensorNames, names_of_layers

TABLE = "token_embedder/embedding"
LOGITS = "decoder/logits_dense/kernel"

_IN_LAYER = "{stack}/layers_{layer}/{end}"  # see `names_of_layers`
# Attention and its norm, by stack and our name for it.
_ATTENTION = {
    ("encoder", "self_attention"): "attention",
    ("decoder", "self_attention"): "self_attention",
    ("decoder", "cross_attention"): "encoder_decoder_attention",
}
_NORMS = {
    ("encoder", "self_attention_norm"): "pre_attention_layer_norm",
    ("decoder", "self_attention_norm"): "pre_self_attention_layer_norm",
    ("decoder", "cross_attention_norm"): "pre_cross_attention_layer_norm",
    ("encoder", "feed_forward_norm"): "pre_mlp_layer_norm",
    ("decoder", "feed_forward_norm"): "pre_mlp_layer_norm",
}


def relative_bias(stack: str) -> str:
    """The name of a stack's relative position bias, [heads, buckets]."""
    return f"{stack}/relpos_bias/rel_embedding"


def tensor_names(model: ModelConfig, parameters: Any) -> Any:
    """A `TensorNames` for each parameter of a model, in the same nested dict."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: _names_of(model, tuple(key.key for key in path)), parameters
    )


def _names_of(model: ModelConfig, path: tuple[str, ...]) -> TensorNames:
    match path:
        case ("token_embedding", "embedding"):
            return TensorNames(np.array(TABLE), transposed=False)
        case ("logits",):
            return TensorNames(np.array(LOGITS), transposed=False)
        case (stack, "relative_position_bias", "embedding"):
            return TensorNames(np.array(relative_bias(stack)), transposed=True)
        case (stack, "final_norm", "scale"):
            return TensorNames(np.array(f"{stack}/{stack}_norm/scale"), transposed=False)
        case (_, _, _, _, _):
            return names_of_layers(model, path, _ends, _IN_LAYER, transposed=False)
    raise ValueError(f"no name for the parameter {'/'.join(path)}")


def _ends(model: ModelConfig, stack: str, part: str, leaf: str, is_sparse: bool) -> list[str]:
    """How the name goes on behind the layer's number: one, or one for each expert."""
    if part in ("self_attention", "cross_attention"):
        return [f"{_ATTENTION[stack, part]}/{leaf}/kernel"]
    if part != "feed_forward":
        return [f"{_NORMS[stack, part]}/scale"]
    if leaf == "router":
        return ["mlp/router/router_weights/w/kernel"]
    if model.activation == "relu":
        leaf = leaf.replace("wi_0", "wi")
    if is_sparse:
        return [f"mlp/expert/{leaf}/kernel/{e}" for e in range(model.num_experts)]
    return [f"mlp/{leaf}/kernel"]
