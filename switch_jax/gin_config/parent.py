"""The model of a run that starts from another one, and is given no model's file."""

import contextlib
import dataclasses
from collections.abc import Sequence

from etils import epath

from switch_jax.config import LossConfig, ModelConfig, OptimizerConfig
from switch_jax.errors import UserError
from switch_jax.gin_config import gin_internals
from switch_jax.gin_config.checks import describes_model
from switch_jax.gin_config.reader import Reader
from switch_jax.run_folder import RunFolder, config_values, value_of
from switch_jax.storage import exists, explain_read_errors, no_model_there, read_bytes, storage_path

# What models' files set: the model, and the losses and the bias that keep its routers even.
_TAKEN = (
    *(f"ModelConfig.{field.name}" for field in dataclasses.fields(ModelConfig)),
    "OptimizerConfig.router_bias_update_rate",
    "LossConfig.aux_loss_factor",
    "LossConfig.router_z_loss_factor",
)
_RUN_FILE = "runs/pretrain.gin"  # whose VOCABULARY is a default, and nobody's wish


def take_model_of_parent(reader: Reader, bindings: Sequence[str]) -> str:
    """Sets the model and the vocabulary as INITIAL_CHECKPOINT_PATH's run has them, once files are
    read that describe no model.

    What a file sets stays, and what bindings set wins later. A run that goes on from a checkpoint
    of its own has its own config.gin, whatever has become of that run.

    Args:
      reader: of the files.
      bindings: as for `read`; they are not set yet.

    Returns:
      A line that says what is taken; '' where nothing is.

    Raises:
      UserError: there is no such folder, or no config.gin to take the model from.
      TransientError: the storage failed.
    """
    start = _given("INITIAL_CHECKPOINT_PATH", bindings)
    if start is None or describes_model(gin_internals.bindings()):
        return ""
    path = storage_path(start, "INITIAL_CHECKPOINT_PATH")
    is_step = RunFolder(path.parent.parent).checkpoints == path.parent
    folders = [RunFolder(path.parent.parent if is_step else path)]
    if own := _given("MODEL_DIR", bindings):
        own_folder = RunFolder.at(own)
        folders.insert(0 if own_folder.checkpoint_steps() else 1, own_folder)
    texts = {folder: _text(folder.config) for folder in folders}
    folder = next((folder for folder, text in texts.items() if text), None)
    if folder is None:
        if not exists(path):
            raise no_model_there(start)
        raise UserError(
            f"the gin files describe no model, and INITIAL_CHECKPOINT_PATH {start!r} has no "
            "config.gin to take one from: give the model's file first"
        )
    _set(reader, config_values(texts[folder]), str(folder.config))
    return f"the model is that of {folder.config}"


def _text(file: epath.Path) -> str:
    """The content of a config.gin; '' where there is none."""
    with explain_read_errors(file), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return read_bytes(file).decode(errors="replace")
    return ""


def _set(reader: Reader, values: dict[str, str], file: str) -> None:
    """Sets the values of a config.gin that nothing sets yet."""
    bound, macros = gin_internals.bindings(), gin_internals.macros()
    defaults = {
        f"{config.__name__}.{field.name}": repr(field.default)
        for config in (ModelConfig, OptimizerConfig, LossConfig)
        for field in dataclasses.fields(config)
        if field.default is not dataclasses.MISSING
    }
    known = {**defaults, "DataConfig.vocabulary": "None", **values}
    for field in _TAKEN:
        macro = field.partition(".")[2].upper()
        if field in bound or field not in known:
            continue
        if macro not in macros:
            reader.set(macro, value_of(field, known), file)
        reader.set(field, f"%{macro}", file)
    vocabulary = value_of("DataConfig.vocabulary", known)
    if vocabulary != "None" and reader.origins.get("VOCABULARY") == [_RUN_FILE]:
        reader.set("VOCABULARY", vocabulary, file)


def _given(macro: str, bindings: Sequence[str]) -> str | None:
    """The text that a binding, or else a file, sets a macro to; None where there is none."""
    pairs = [binding.partition("=") for binding in bindings]
    of_bindings = [value for name, _, value in pairs if name.strip() == macro]
    value = gin_internals.macros().get(macro)
    if of_bindings:
        value = gin_internals.value_of(of_bindings[-1])
    return value if isinstance(value, str) else None
