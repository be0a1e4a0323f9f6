"""Describes a checkpoint by its headers alone."""

import dataclasses
from collections.abc import Sequence

from etils import epath
from sentencepiece import SentencePieceProcessor

from switch_jax.checkpointing.read_only import check_part
from switch_jax.config import Config, ModelConfig
from switch_jax.conversion.hugging_face.folder import SENTENCEPIECE
from switch_jax.conversion.source import Source, read_as
from switch_jax.model import abstract_parameters
from switch_jax.model.parameter_names import parameter_shapes, sizes_by_group
from switch_jax.storage import is_file, read_bytes
from switch_jax.utils.units import aligned


def describe_source(source: Source) -> list[str]:
    """Describes a checkpoint of another format; raises UserError for a damaged tokenizer."""
    tokenizer = source.folder / SENTENCEPIECE
    vocabulary = f"no {SENTENCEPIECE} in the folder"
    if is_file(tokenizer):
        processor = SentencePieceProcessor()
        with read_as(tokenizer, "a SentencePiece model"):
            processor.LoadFromSerializedProto(read_bytes(tokenizer))
        vocabulary = f"{SENTENCEPIECE}, {processor.GetPieceSize():,} pieces"
    model = ModelConfig(**source.architecture)
    file_format = f"{source.format}, {source.details}"
    return _lines(file_format, model, source.dtypes, source.step, vocabulary)


def describe_run(checkpoint: epath.Path, config: Config) -> list[str]:
    """Describes a checkpoint of ours; raises UserError if it is damaged, or of another model."""
    check_part(checkpoint, "parameters", abstract_parameters(config.model))
    vocabulary = config.data.vocabulary or f"that of {config.data.mixture_or_task_name}"
    return _lines("switch_jax", config.model, ["float32"], int(checkpoint.name), vocabulary)


def _lines(
    file_format: str, model: ModelConfig, dtypes: Sequence[str], step: int | None, vocabulary: str
) -> list[str]:
    counts = sizes_by_group(model)
    sizes = [  # every field that differs from the default of `ModelConfig`
        (f"  {field.name}", repr(value))
        for field in dataclasses.fields(model)
        if (value := getattr(model, field.name)) != field.default
    ]
    rows = [
        ("format", file_format),
        ("model", "sparse" if model.num_experts else "dense"),
        *sizes,
        ("dtype", ", ".join(dtypes)),
        ("step", "unknown" if step is None else f"{step:,}"),
        ("vocabulary", vocabulary),
        ("parameters", f"{sum(counts.values()):,}"),
        *((f"  {group}", f"{n:,}") for group, n in counts.items()),
    ]
    named = [(name, str(shape)) for name, shape in parameter_shapes(model).items()]
    return [*aligned(rows), *aligned([("name", "shape"), *named])]
