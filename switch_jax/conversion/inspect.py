"""What a checkpoint is, by its headers alone."""

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
            ("model", _model_text(self.model)),
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


def _model_text(model: ModelConfig) -> str:
    experts = ""
    if model.num_experts:
        sublayers = {
            "feed_forward": "",
            "attention": " (attention)",
            "both": " (attention and feed-forward)",
        }
        experts = (
            f", {model.num_experts} experts in {_sparse_layers_text(model)}"
            f"{sublayers[model.expert_sublayers]}"
        )
        if model.encoder_router_type != "tokens_choose":
            experts += f", {model.encoder_router_type} in the encoder"
    logits = "tied" if model.tie_embeddings else "separate"
    return (
        f"{model.num_encoder_layers} + {model.num_decoder_layers} layers{experts}, embed_dim "
        f"{model.embed_dim}, mlp_dim {model.mlp_dim}, {model.num_heads} heads of {model.head_dim}, "
        f"{model.activation}, {logits} logits, {model.num_embeddings:,} embeddings"
    )


def _sparse_layers_text(model: ModelConfig) -> str:
    """As 'every 2nd layer', or 'layers of the encoder: 2 (4, 5), of the decoder: 0'."""
    step = model.sparse_step
    blocks = [block for stack in model.blocks.values() for block in stack]
    if all(block.has_experts and block.layers_per_block == step for block in blocks):
        return {1: "every layer", 2: "every 2nd layer"}.get(step, f"one layer in {step}")
    encoder, decoder = (
        f"{len(layers)} (" + ", ".join(map(str, layers)) + ")" if layers else "0"
        for layers in model.sparse_layers.values()
    )
    return f"layers of the encoder: {encoder}, of the decoder: {decoder}"
