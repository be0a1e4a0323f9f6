"""The names of Hugging Face's tensors for each of our parameters."""

from typing import Any

import jax
import numpy as np

from switch_jax.config import ModelConfig
from switch_jax.conversion.stacked import TensorNames, names_of_layers

# The table of tokens is one, under up to four names that may share their storage.
TABLE = "shared.weight"
TABLE_ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
LOGITS = "lm_head.weight"
# Old T5 files hold it, and no layer reads it: cross-attention has no position bias.
UNUSED = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)

_IN_LAYER = "{stack}.block.{layer}.{end}.weight"  # see `names_of_layers`
_ATTENTION = {"query": "q", "key": "k", "value": "v", "out": "o"}
_BIAS = "block.0.layer.0.SelfAttention.relative_attention_bias"


def tensor_names(model: ModelConfig, parameters: Any) -> Any:
    """A `TensorNames` for each parameter of a model, in the same nested dict.

    T5 calls a feed-forward layer `DenseReluDense`, also a gated one, and Switch Transformers `mlp`.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: _names_of(model, tuple(key.key for key in path)), parameters
    )


def _names_of(model: ModelConfig, path: tuple[str, ...]) -> TensorNames:
    match path:
        case ("token_embedding", "embedding"):
            return TensorNames(np.array(TABLE), transposed=False)
        case ("logits",):
            return TensorNames(np.array(LOGITS), transposed=True)
        case (stack, "relative_position_bias", "embedding"):
            return TensorNames(np.array(f"{stack}.{_BIAS}.weight"), transposed=False)
        case (stack, "final_norm", "scale"):
            return TensorNames(np.array(f"{stack}.final_layer_norm.weight"), transposed=False)
        case (_, _, _, _, leaf):
            return names_of_layers(model, path, _ends, _IN_LAYER, transposed=leaf != "scale")
    raise ValueError(f"no name for the parameter {'/'.join(path)}")


def _ends(model: ModelConfig, stack: str, part: str, leaf: str, is_sparse: bool) -> list[str]:
    """How the name goes on behind the layer's number: one, or one for each expert."""
    feed_forward = "layer.1" if stack == "encoder" else "layer.2"  # behind cross-attention
    match part:
        case "self_attention_norm":
            return ["layer.0.layer_norm"]
        case "self_attention":
            return [f"layer.0.SelfAttention.{_ATTENTION[leaf]}"]
        case "cross_attention_norm":
            return ["layer.1.layer_norm"]
        case "cross_attention":
            return [f"layer.1.EncDecAttention.{_ATTENTION[leaf]}"]
        case "feed_forward_norm":
            return [f"{feed_forward}.layer_norm"]
    if leaf == "router":
        return [f"{feed_forward}.mlp.router.classifier"]
    if model.activation == "relu":
        leaf = leaf.replace("wi_0", "wi")
    if is_sparse:
        experts = range(model.num_experts)
        return [f"{feed_forward}.mlp.experts.expert_{e}.{leaf}" for e in experts]
    return [f"{feed_forward}.{'mlp' if model.num_experts else 'DenseReluDense'}.{leaf}"]
