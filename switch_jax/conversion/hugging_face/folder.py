"""Opens a Hugging Face folder, and checks it by its headers."""

from etils import epath

from switch_jax.config import ModelConfig
from switch_jax.conversion.hugging_face.model_config import CONFIG, MODEL_TYPES, read_config
from switch_jax.conversion.hugging_face.tensor_files import open_tensors, tensor_files
from switch_jax.conversion.source import Source, read_small_file
from switch_jax.run_folder import RunFolder
from switch_jax.storage import is_file
from switch_jax.utils.errors import UserError

SENTENCEPIECE = "spiece.model"  # the tokenizer's file
TOKENIZER_CONFIG = "tokenizer_config.json"


def is_hugging_face(path: epath.Path) -> bool:
    """Says whether a folder has Hugging Face's config.json, and no config.gin as our runs have."""
    return is_file(path / CONFIG) and not is_file(RunFolder(path).config)


def vocabulary_name(path: epath.Path, model_type: str) -> str | None:
    """Returns VOCABULARY for a folder without a SentencePiece model: that of released models.

    None, the task's own, where these have a tokenizer of another kind.
    """
    if not MODEL_TYPES[model_type].family.is_sequence_to_sequence:
        return None
    file = path / TOKENIZER_CONFIG
    if is_file(file) and b"ByT5Tokenizer" in read_small_file(file):
        return "byte"
    return "mt5" if model_type == "mt5" else "t5"


def open_folder(path: epath.Path) -> Source:
    """Opens a folder by its headers; raises as `Source`, and UserError for an unknown model."""
    config = read_config(path)
    model_type = config["model_type"]
    architecture, family, _ = MODEL_TYPES[model_type]
    try:
        fields = family.architecture(config)
        model = ModelConfig(**fields)
    except UserError as error:
        raise UserError(f"{path / CONFIG}: {error}") from error
    files = tensor_files(path)
    tensors = open_tensors(files)
    try:
        copies = family.pop_copies(config, tensors)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return Source(
        path=path,
        folder=path,
        format=f"Hugging Face {architecture}",
        details=f"{len(files)} files" if len(files) > 1 else files[0].name,
        step=None,
        vocabulary=vocabulary_name(path, model_type),
        architecture=fields,
        names=family.tensor_names(model),
        tensors=tensors,
        copies=copies,
        row_length=config.get("max_position_embeddings"),
    )
