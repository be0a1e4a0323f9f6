"""Describes a model of another format in gin: architecture, groups and vocabulary."""

from etils import epath

from switch_jax.conversion.source import Source
from switch_jax.gin_config.packaged import packaged_macros


def source_to_gin(
    source: Source, model_dir: epath.Path, vocabulary: str
) -> tuple[list[str], list[str]]:
    """Returns the gin files and bindings that describe a model of another format."""
    bindings = {
        "MODEL_DIR": str(model_dir),
        "MIXTURE_OR_TASK_NAME": "english_span_corruption",  # its text comes with us
        "BATCH_SIZE": 16,
        "VOCABULARY": vocabulary,
    }
    fields = dict(source.architecture)
    model_file = "models/switch_base.gin"
    if not fields["num_experts"]:  # dense models have no macro for it
        model_file = "models/t5_base.gin"
        del fields["num_experts"]
    macros = packaged_macros()
    for name, value in fields.items():
        bindings[name.upper() if name.upper() in macros else f"ModelConfig.{name}"] = value
    return [model_file, "runs/pretrain.gin"], [f"{name}={x!r}" for name, x in bindings.items()]
