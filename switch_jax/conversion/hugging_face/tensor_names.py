"""Names the tensors of Hugging Face for each of our parameters."""

from typing import Any

from switch_jax.config import ModelConfig
from switch_jax.conversion.tensor_layout import stacked_names

# There is one table of tokens, under up to four names that may share their storage.
TABLE = "shared.weight"
TABLE_ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
LOGITS = "lm_head.weight"
# Old T5 files hold it, and no layer reads it: cross-attention has no position bias.
UNUSED = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)

_ATTENTION = {"query": "q", "key": "k", "value": "v", "out": "o"}


def tensor_names(model: ModelConfig) -> dict[str, Any]:
    """Calls `stacked_names`; feed-forward layers are `DenseReluDense` in T5, `mlp` in Switch."""
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
