"""Reads T5X's msgpack file `checkpoint`: the names, small arrays, and where the large ones are."""

import re
from typing import Any, NamedTuple

from etils import epath
from flax.serialization import msgpack_restore
from flax.traverse_util import flatten_dict

from switch_jax.conversion.source import read_as
from switch_jax.storage import is_file, is_folder, list_names
from switch_jax.utils.errors import UserError

_FILE = "checkpoint"
_FOLDER = r"checkpoint_\d+"
# Where the parameters and the optimiser's state are: T5X wraps them, since version 1; Orbax, which
# T5X can save with, names the wrapper otherwise; version 0 has none.
_WRAPPERS = ("optimizer", "_optimizer")
# Beside the parameters. The state is left out; the others are empty, or hold names of axes.
_LEFT_OUT = ("state", "params_axes", "flax_mutables_axes", "version")


class Content(NamedTuple):
    """The content of the file.

    Attributes:
      version: the version of the format.
      parameters: the leaves by name, as in 'token_embedder/embedding': an array, the spec of a
        TensorStore (a dict), or a placeholder (a str).
      has_optimizer_state: whether there is more state than the step.
      step: the leaf of the step; None if there is none.
    """

    version: int
    parameters: dict[str, Any]
    has_optimizer_state: bool
    step: Any


def find_file(path: epath.Path) -> epath.Path | None:
    """Finds the file at a path: itself, in a folder checkpoint_STEP, or in a folder of that folder.

    Returns None if the path is no T5X checkpoint; raises UserError for a folder of several, or of
    one whose file is missing.
    """
    if path.name == _FILE and is_file(path):
        return path
    found = _file_in(path)
    if found is not None or not is_folder(path):
        return found
    if re.fullmatch(_FOLDER, path.name):
        raise UserError(
            f"{path} has no file named {_FILE}, in which T5X names its arrays: copy the whole "
            "folder; what Orbax writes without that file (_METADATA, OCDBT) is not read"
        )
    files = [
        file
        for name in list_names(path)
        if re.fullmatch(_FOLDER, name) and (file := _file_in(path / name))
    ]
    if len(files) > 1:
        names = ", ".join(file.relative_to(path).parts[0] for file in files[:3])
        raise UserError(f"{path} has {len(files)} T5X checkpoints, as {names}: name one of them")
    return files[0] if files else None


def _file_in(folder: epath.Path) -> epath.Path | None:
    """Finds the file in the folder of a checkpoint; Orbax puts it one folder deeper."""
    candidates = (folder / _FILE, folder / "state" / _FILE)
    return next((file for file in candidates if is_file(file)), None)


def read_file(file: epath.Path) -> Content:
    """Reads the file alone; UserError if it is damaged, or holds more than a model."""
    with read_as(file, "a whole msgpack file of T5X"):
        content = msgpack_restore(file.read_bytes())
    version = content.get("version", 0) if isinstance(content, dict) else None
    if not isinstance(version, int):
        raise UserError(f"{file} holds something else than a checkpoint of T5X")
    wrapper = next((name for name in _WRAPPERS if isinstance(content.get(name), dict)), None)
    if wrapper is not None:
        content |= content.pop(wrapper)
    parameters = _leaves(content.get("target"))
    if not parameters or "" in parameters:  # target is itself an array
        raise UserError(f"{file} holds no parameters: a T5X checkpoint has them under 'target'")
    for name in _leaves({k: v for k, v in content.items() if k not in ("target", *_LEFT_OUT)}):
        raise UserError(f"{file}: {name} is left over: a model of ours has no such variables")
    state = _leaves(content.get("state"))
    step = state.pop("step", None)
    return Content(version, parameters, bool(state), step)


def is_spec(leaf: Any) -> bool:
    if not isinstance(leaf, dict):
        return False
    return isinstance(leaf.get("driver"), str) and isinstance(leaf.get("kvstore"), dict)


def _leaves(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a nested dict by name, except None; none if it is no dict."""
    if not isinstance(tree, dict):
        return {}
    flat = flatten_dict(tree, is_leaf=lambda _, leaf: is_spec(leaf))
    return {"/".join(map(str, path)): leaf for path, leaf in flat.items() if leaf is not None}
