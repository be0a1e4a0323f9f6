"""Describes a model of another format in gin: architecture, groups and vocabulary."""

from typing import Any, NamedTuple

from etils import epath

from switch_jax.config import ModelConfig
from switch_jax.conversion.source import Source
from switch_jax.gin_config.packaged import packaged_macros


class _Base(NamedTuple):
    """What the gin of a model begins with; the text of the task comes with us."""

    sparse: str
    dense: str
    run: str
    task: str


_LONGEST_ROW = 1024  # that of runs/pretrain_lm.gin: released models can have far longer ones
# By whether the first stack is causal.
_BASES = {
    False: _Base("switch_base", "t5_base", "pretrain", "english_span_corruption"),
    True: _Base("switch_lm_base", "lm_base", "pretrain_lm", "english_full_lm"),
}


def source_to_gin(
    source: Source, model_dir: epath.Path, vocabulary: str | None
) -> tuple[list[str], list[str]]:
    """Returns the gin files and bindings that describe a model of another format."""
    fields = dict(source.architecture)
    is_causal = ModelConfig(**fields).stacks[0].causal
    base = _BASES[is_causal]
    bindings: dict[str, Any] = {
        "MODEL_DIR": str(model_dir),
        "MIXTURE_OR_TASK_NAME": base.task,
        "BATCH_SIZE": 16,
        "VOCABULARY": vocabulary,
    }
    if is_causal and source.row_length:
        bindings["TASK_FEATURE_LENGTHS"] = {"targets": min(source.row_length, _LONGEST_ROW)}
    model = base.sparse
    if not fields["num_experts"]:  # dense models have no macro for it
        model = base.dense
        del fields["num_experts"]
    macros = packaged_macros()
    for name, value in fields.items():
        bindings[name.upper() if name.upper() in macros else f"ModelConfig.{name}"] = value
    files = [f"models/{model}.gin", f"runs/{base.run}.gin"]
    return files, [f"{name}={x!r}" for name, x in bindings.items()]
