"""What a checkpoint is, by its headers alone."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from etils import epath
from sentencepiece import SentencePieceProcessor

from switch_jax.checkpointing.read_only import check_part
from switch_jax.config import Config, ModelConfig
from switch_jax.conversion.hugging_face.folder import SENTENCEPIECE
from switch_jax.conversion.source import Source, read_small_file
from switch_jax.errors import UserError
from switch_jax.model import abstract_parameters
from switch_jax.model.parameter_names import parameter_shapes, sizes_by_group
from switch_jax.storage import is_file
from switch_jax.units import aligned


class Checkpoint(NamedTuple):
    """What is told of a checkpoint.

    Attributes:
      format: whose files these are.
      model: its config, whose parameters it holds.
      dtypes: in which they are stored.
      step: of training; None: it does not say.
      vocabulary: what is known of it.
    """

    format: str
    model: ModelConfig
    dtypes: Sequence[str]
    step: int | None
    vocabulary: str

    def lines(self) -> list[str]:
        """A table of two columns, and below it one of the names and shapes of all parameters."""
        counts = sizes_by_group(self.model)
        rows = [
            ("format", self.format),
            ("model", "sparse" if self.model.num_experts else "dense"),
            *_model_rows(self.model),
            ("dtype", ", ".join(self.dtypes)),
            ("step", "unknown" if self.step is None else f"{self.step:,}"),
            ("vocabulary", self.vocabulary),
            ("parameters", f"{sum(counts.values()):,}"),
            *((f"  {group}", f"{n:,}") for group, n in counts.items()),
        ]
        named = [(name, str(shape)) for name, shape in parameter_shapes(self.model).items()]
        return [*aligned(rows), *aligned([("name", "shape"), *named])]


def other_checkpoint(source: Source) -> Checkpoint:
    """What a checkpoint of another format holds; raises UserError for a damaged tokenizer."""
    return Checkpoint(
        f"{source.format}, {source.details}",
        ModelConfig(**source.architecture),
        source.dtypes,
        source.step,
        _sentencepiece_text(source.folder / SENTENCEPIECE),
    )


def run_checkpoint(checkpoint: epath.Path, config: Config) -> Checkpoint:
    """What a checkpoint of ours holds.

    Args:
      checkpoint: MODEL_DIR/checkpoints/STEP.
      config: of its run.

    Raises:
      UserError: it is damaged, or of another model.
    """
    check_part(checkpoint, "parameters", abstract_parameters(config.model))
    task = config.data.mixture_or_task_name
    vocabulary = config.data.vocabulary or f"that of {task}"
    return Checkpoint("switch_jax", config.model, ["float32"], int(checkpoint.name), vocabulary)


def _sentencepiece_text(file: epath.Path) -> str:
    if not is_file(file):
        return f"no {file.name} in the folder"
    processor = SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(read_small_file(file))
    except RuntimeError as error:
        raise UserError(f"{file} is not a SentencePiece model: copy it again") from error
    return f"{file.name}, {processor.GetPieceSize():,} pieces"


def _model_rows(model: ModelConfig) -> list[tuple[str, str]]:
    """The sizes, and what else is not the default of a `ModelConfig`."""
    return [
        (f"  {field.name}", repr(value))
        for field in dataclasses.fields(model)
        if (value := getattr(model, field.name)) != field.default
    ]
