"""Opens a Hugging Face folder, and checks it by its headers."""

from etils import epath

from switch_jax.config import ModelConfig
from switch_jax.conversion.hugging_face.model_config import (
    ARCHITECTURES,
    CONFIG,
    architecture,
    read_config,
)
from switch_jax.conversion.hugging_face.tensor_files import open_tensors, tensor_files
from switch_jax.conversion.hugging_face.tensor_names import (
    LOGITS,
    TABLE,
    TABLE_ALIASES,
    UNUSED,
    tensor_names,
)
from switch_jax.conversion.source import Source, pop_copies, read_small_file
from switch_jax.run_folder import RunFolder
from switch_jax.storage import is_file
from switch_jax.utils.errors import UserError

SENTENCEPIECE = "spiece.model"  # the tokenizer's file
TOKENIZER_CONFIG = "tokenizer_config.json"


def is_hugging_face(path: epath.Path) -> bool:
    """Says whether a folder has Hugging Face's config.json, and no config.gin as our runs have."""
    return is_file(path / CONFIG) and not is_file(RunFolder(path).config)


def vocabulary_name(path: epath.Path, model_type: str) -> str:
    """Returns VOCABULARY for a folder without a SentencePiece model: that of released models."""
    file = path / TOKENIZER_CONFIG
    if is_file(file) and b"ByT5Tokenizer" in read_small_file(file):
        return "byte"
    return "mt5" if model_type == "mt5" else "t5"


def open_folder(path: epath.Path) -> Source:
    """Opens a folder by its headers; raises as `Source`, and UserError for an unknown model."""
    config = read_config(path)
    model_type = config["model_type"]
    try:
        fields = architecture(config)
        model = ModelConfig(**fields)
    except UserError as error:
        raise UserError(f"{path / CONFIG}: {error}") from error
    files = tensor_files(path)
    tensors = {name: t for name, t in open_tensors(files).items() if name not in UNUSED}
    one_table = "a model of ours has one table for the encoder and the decoder"
    copies = pop_copies(tensors, TABLE, TABLE_ALIASES, one_table)
    if model.tie_embeddings:
        tied = f"{CONFIG} says that the logits are tied to the table"
        copies += pop_copies(tensors, TABLE, [LOGITS], tied)
    elif LOGITS not in tensors:
        raise UserError(
            f"{path} has no {LOGITS}, so its logits are those of the token table, and by {CONFIG} "
            "they are not scaled by d_model^-0.5: a model of ours has either both or neither"
        )
    return Source(
        path=path,
        folder=path,
        format=f"Hugging Face {ARCHITECTURES[model_type]}",
        details=f"{len(files)} files" if len(files) > 1 else files[0].name,
        step=None,
        vocabulary=vocabulary_name(path, model_type),
        architecture=fields,
        names=tensor_names(model),
        tensors=tensors,
        copies=copies,
    )
