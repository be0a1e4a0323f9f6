"""The model of a run that starts from another one, and is given no model's file."""

from collections.abc import Sequence

from switch_jax.config import PARTS, Config, ModelConfig
from switch_jax.gin_config import gin_internals
from switch_jax.gin_config.checks import describes_model
from switch_jax.gin_config.reader import Reader
from switch_jax.run_folder import RunFolder, read_run_config
from switch_jax.storage import exists, missing_model, storage_path
from switch_jax.utils.errors import UserError
from switch_jax.utils.fields import hints_of, inherited


def take_model_of_parent(reader: Reader, bindings: Sequence[str]) -> str:
    """Sets the model that INITIAL_CHECKPOINT_PATH's run has, and the fields that are `Inherited`.

    It does so where the files that were read describe no model; what they set stays, and what
    bindings set wins later. A run that goes on from a checkpoint of its own takes them from its own
    config.json. Returns a line that says what is taken; '' where nothing is. UserError where there
    is no such folder, or no config.json to take the model from; TransientError where the storage
    failed.
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
    for folder in folders:
        if parent := read_run_config(folder):
            _set(reader, parent, str(folder.config))
            return f"the model is that of {folder.config}"
    if not exists(path):
        raise missing_model(start)
    raise UserError(
        f"the gin files describe no model, and INITIAL_CHECKPOINT_PATH {start!r} has no "
        "config.json of a run to take one from: give the model's file first"
    )


def _set(reader: Reader, parent: Config, file: str) -> None:
    """Sets the fields of the model and those that are `Inherited`, where nothing sets them yet."""
    bound, macros = gin_internals.bindings(), gin_internals.macros()
    for part, kind in PARTS.items():
        for name in hints_of(kind) if kind is ModelConfig else inherited(kind):
            field, macro = f"{kind.__name__}.{name}", name.upper()
            is_default = reader.origins.get(macro) == ["runs/pretrain.gin"]  # nobody's wish
            if is_default or (field not in bound and macro not in macros):
                reader.set(macro, repr(getattr(getattr(parent, part), name)), file)
            if field not in bound:
                reader.set(field, f"%{macro}", file)


def _given(macro: str, bindings: Sequence[str]) -> str | None:
    """The text that a binding, or else a file, sets a macro to; None where there is none."""
    pairs = [binding.partition("=") for binding in bindings]
    of_bindings = [value for name, _, value in pairs if name.strip() == macro]
    value = gin_internals.macros().get(macro)
    if of_bindings:
        value = gin_internals.value_of(of_bindings[-1])
    return value if isinstance(value, str) else None
