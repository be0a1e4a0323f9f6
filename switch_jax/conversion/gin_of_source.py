"""Gin for a model of another format: architecture, groups and vocabulary as files and bindings."""

from typing import Any

from etils import epath

from switch_jax.conversion.source import Source

# What a converted model is evaluated on where nothing else is named: text that comes with us.
_TASK = "english_span_corruption"
_BATCH_SIZE = 16


def gin_of_source(
    source: Source, model_dir: epath.Path, vocabulary: str
) -> tuple[list[str], list[str]]:
    """The gin files and bindings that describe a model of another format.

    Args:
      source: the model.
      model_dir: the folder of the run.
      vocabulary: VOCABULARY.
    """
    architecture = source.architecture
    model_file = "models/switch_base.gin" if architecture["num_experts"] else "models/t5_base.gin"
    bindings = [
        f"MODEL_DIR={str(model_dir)!r}",
        f"MIXTURE_OR_TASK_NAME={_TASK!r}",
        f"BATCH_SIZE={_BATCH_SIZE}",
        f"VOCABULARY={vocabulary!r}",
        *_model_bindings(architecture),
    ]
    return [model_file, "runs/pretrain.gin"], bindings


def _model_bindings(architecture: dict[str, Any]) -> list[str]:
    """Bindings of the macros that the packaged models have, and of the other fields."""
    without_macro = {
        *("activation", "tie_embeddings", "norm_epsilon"),
        *("relative_position_buckets", "relative_position_max_distance"),
    }
    if not architecture["num_experts"]:
        without_macro.add("num_experts")
    return [
        f"{f'ModelConfig.{name}' if name in without_macro else name.upper()}={value!r}"
        for name, value in architecture.items()
    ]
