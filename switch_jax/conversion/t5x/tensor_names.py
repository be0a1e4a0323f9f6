"""Names T5X's tensors for our parameters, one for each layer and expert: see `tensors.unstack`."""

from typing import Any

from switch_jax.config import ModelConfig
from switch_jax.conversion.tensor_layout import stacked_names

TABLE = "token_embedder/embedding"
LOGITS = "decoder/logits_dense/kernel"

# Our names of attention and T5X's, by stack.
_ATTENTION = {
    "encoder": {"self_attention": "attention"},
    "decoder": {
        "self_attention": "self_attention", "cross_attention": "encoder_decoder_attention"
    },
}  # fmt: skip


def relative_bias(stack: str) -> str:
    """Returns the name of a stack's relative position bias, [heads, buckets]."""
    return f"{stack}/relpos_bias/rel_embedding"


def tensor_names(model: ModelConfig) -> dict[str, Any]:
    """Calls `stacked_names` with T5X's names."""
    theirs = {"token_embedding/embedding": TABLE, "logits": LOGITS}
    kernels = {"wi_0": "wi" if model.activation == "relu" else "wi_0", "wi_1": "wi_1", "wo": "wo"}
    for stack, attention in _ATTENTION.items():
        layer = f"{stack}/layers_{{layer}}"
        theirs |= {
            f"{stack}/relative_position_bias/embedding": relative_bias(stack),
            f"{stack}/final_norm/scale": f"{stack}/{stack}_norm/scale",
            f"{stack}/feed_forward_norm/scale": f"{layer}/pre_mlp_layer_norm/scale",
            f"{stack}/feed_forward/router": f"{layer}/mlp/router/router_weights/w/kernel",
        }
        for ours, name in attention.items():
            norm = name.replace("encoder_decoder", "cross")
            theirs[f"{stack}/{ours}_norm/scale"] = f"{layer}/pre_{norm}_layer_norm/scale"
            for leaf in ("query", "key", "value", "out"):
                theirs[f"{stack}/{ours}/{leaf}"] = f"{layer}/{name}/{leaf}/kernel"
        for ours, kernel in kernels.items():
            theirs[f"{stack}/feed_forward/{ours}"] = f"{layer}/mlp/{kernel}/kernel"
            theirs[f"{stack}/experts/{ours}"] = f"{layer}/mlp/expert/{kernel}/kernel/{{expert}}"
    return stacked_names(model, theirs, lambda name: "relative_position_bias" in name)
