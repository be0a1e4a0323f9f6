"""The edge where gin enters: the config dataclasses are registered here, and nowhere else."""

import dataclasses
import difflib
import os
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gin import config as gin
from switch_jax.data.pipeline import DataConfig
from switch_jax.errors import UserError
from switch_jax.model import ModelConfig
from switch_jax.partitioning.mesh import MeshConfig
from switch_jax.paths import GIN_DIR
from switch_jax.training.config import RunConfig
from switch_jax.training.guard import GuardConfig
from switch_jax.training.loss import LossConfig
from switch_jax.training.optimizer import OptimizerConfig

# By the name of the argument of `training.loop.train` that each becomes.
CONFIGS: dict[str, Any] = {
    "run": RunConfig,
    "model": ModelConfig,
    "data": DataConfig,
    "mesh": MeshConfig,
    "optimizer": OptimizerConfig,
    "loss": LossConfig,
    "guard": GuardConfig,
}
_CONFIGURABLES = {
    name: gin.external_configurable(config, module="switch_jax") for name, config in CONFIGS.items()
}


def parse(
    files: Sequence[str],
    bindings: Sequence[str],
    search_paths: Sequence[str],
    unneeded: Sequence[str] = (),
) -> None:
    """Reads gin files, then bindings; later ones win.

    Args:
      files: looked for in the current directory, in `search_paths`, and among the packaged configs.
      bindings: 'NAME=VALUE' or 'Config.field=VALUE'; a value that is no gin value is a string.
      search_paths: further folders.
      unneeded: macros that may stay without a value: they get their own name.

    Raises:
      UserError: a file that is not there or is no gin; a name that nothing knows.
    """
    if not files:
        raise UserError(
            "no --gin_file: give one, for example --gin_file=runs/demo_switch.gin; packaged are "
            + ", ".join(packaged_files())
        )
    gin.clear_config()
    sys.path.insert(0, os.getcwd())  # for `import my_tasks` in a gin file
    for path in (".", *search_paths, str(GIN_DIR)):
        gin.add_config_file_search_path(path)
    # Plain files only: gin's other reader takes a folder `runs` for a Python package, and trips.
    gin._FILE_READERS[:] = [(open, os.path.isfile)]
    for file in files:
        _check_exists(file, search_paths)
        _explain(lambda file=file: gin.parse_config_file(file))
    _check_macros()
    known = _macros()
    for binding in bindings:
        name, equals, value = binding.partition("=")
        name = name.strip()
        if not equals:
            raise UserError(f"--gin.{binding} has no value: write --gin.{name}=VALUE")
        if "." not in name and name not in known:
            raise UserError(f"no gin file knows a macro {name}{_near(name, known)}")
        _explain(lambda name=name, value=value: gin.parse_config(f"{name} = {_literal(value)}"))
    for name in unneeded:
        if name in _unset():
            gin.parse_config(f"{name} = {name!r}")
    _check_values()


def build() -> dict[str, Any]:
    """One instance of each config dataclass, by argument name of `training.loop.train`.

    Raises:
      UserError: a required value is missing, or one makes no sense.
    """
    parts = {}
    for name, configurable in _CONFIGURABLES.items():
        config = CONFIGS[name]
        missing = [
            field.name
            for field in dataclasses.fields(config)
            if field.default is dataclasses.MISSING
            and field.name not in gin.get_bindings(config.__name__, resolve_references=False)
        ]
        if missing:
            raise UserError(
                f"the gin files set no {', '.join(f'{config.__name__}.{m}' for m in missing)}: "
                "a run needs a model file and a run file, for example "
                "--gin_file=models/switch_base.gin --gin_file=runs/pretrain.gin"
            )
        _check_types(config, gin.get_bindings(config.__name__))
        parts[name] = _explain(configurable)
    return parts


def _check_types(config: Any, values: dict[str, Any]) -> None:
    """Raises UserError where a value is not of the type that the field is declared with."""
    hints = typing.get_type_hints(config)
    for name, value in values.items():
        if not _is_a(value, hints[name]):
            wanted = getattr(hints[name], "__name__", str(hints[name]))
            raise UserError(
                f"{config.__name__}.{name} = {value!r}: it must be of type {wanted}"
                + (" (True or False)" if hints[name] is bool else "")
            )


def _is_a(value: Any, hint: Any) -> bool:
    """Whether the value may stand where the annotation is; an int may stand for a float."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_is_a(value, choice) for choice in typing.get_args(hint))
    if typing.get_origin(hint) is Mapping:
        key, item = typing.get_args(hint)
        return isinstance(value, Mapping) and all(
            _is_a(k, key) and _is_a(v, item) for k, v in value.items()
        )
    if typing.get_origin(hint) is tuple:
        choices = typing.get_args(hint)
        return (
            isinstance(value, tuple | list)
            and len(value) == len(choices)
            and all(_is_a(v, choice) for v, choice in zip(value, choices, strict=True))
        )
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def config_text() -> str:
    """The operative config, which gives the same run again."""
    return gin.operative_config_str()


def packaged_files() -> list[str]:
    """Names of the gin files that come with switch_jax."""
    return sorted(str(path.relative_to(GIN_DIR)) for path in GIN_DIR.rglob("*.gin"))


def _check_exists(file: str, search_paths: Sequence[str]) -> None:
    folders = [Path("."), *map(Path, search_paths), GIN_DIR]
    if not any((folder / file).is_file() for folder in folders):
        near = _near(file, packaged_files())
        places = ", ".join(str(folder) for folder in folders)
        raise UserError(f"no gin file {file} in {places}{near}")


def _explain(action: Any) -> Any:
    """Runs it; gin's complaints become one line, with near names where a name is unknown."""
    try:
        return action()
    except UserError as error:
        raise UserError(_first_line(error)) from error
    except (ValueError, SyntaxError, TypeError, OSError, ImportError, RuntimeError) as error:
        message = _first_line(error)
        place = re.search(r"In (?:file|bindings string).*(?:line \d+)?", str(error))
        if place and place.group() not in message:
            message = f"{message} ({place.group().strip()})"
        raise UserError(f"gin: {message}{_suggestion(message)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _suggestion(message: str) -> str:
    """Near names for the name that a message of gin's quotes."""
    fields = {c.__name__: [f.name for f in dataclasses.fields(c)] for c in CONFIGS.values()}
    unknown = re.search(r"No configurable matching '([^']+)'", message)
    if unknown:
        return _near(unknown.group(1).split(".")[0], list(fields))
    parameter = re.search(
        r"Configurable '(?:.*\.)?(\w+)' doesn't have a parameter named '(\w+)'", message
    )
    if parameter and parameter.group(1) in fields:
        return _near(parameter.group(2), fields[parameter.group(1)])
    return ""


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else f"; known are {', '.join(known)}"


def _literal(value: str) -> str:
    """The value, in quotes where it is no gin value: a path may be typed as it is."""
    try:
        gin.parse_value(value)
        return value
    except (ValueError, SyntaxError):
        return repr(value)


def _macros() -> list[str]:
    """Names of the macros that the files set."""
    return sorted(scope for scope, name in gin._CONFIG if name == "gin.macro")


def _check_macros() -> None:
    """A macro that no value and no packaged file refers to is a mistake."""
    packaged = "\n".join((GIN_DIR / file).read_text() for file in packaged_files())
    used = _used() | set(re.findall(r"%(\w+)", packaged))
    for name in _macros():
        if name not in used:
            raise UserError(f"nothing uses the macro {name}{_near(name, sorted(used))}")


def _unset() -> list[str]:
    """Macros that a file requires a value for, and that have none."""
    return [
        name
        for name in _macros()
        if str(gin._CONFIG[(name, "gin.macro")]["value"]) == "%gin.REQUIRED"
    ]


def _check_values() -> None:
    """A macro without a value is a mistake."""
    unset = _unset()
    if unset:
        flags = " ".join(f"--gin.{name}=..." for name in unset)
        raise UserError(f"{' and '.join(unset)} not set: write {flags}")
    for name in sorted(_used() - set(_macros())):
        raise UserError(f"no gin file sets the macro {name}{_near(name, _macros())}")


def _used() -> set[str]:
    """Names of the macros that some value refers to."""
    return {
        reference.scoped_selector.split("/")[0]
        for bindings in gin._CONFIG.values()
        for value in bindings.values()
        for reference in _references(value)
    }


def _references(value: Any) -> list[Any]:
    """Macros in a value of gin's, however deep."""
    if isinstance(value, dict):
        return [r for item in value.values() for r in _references(item)]
    if isinstance(value, list | tuple | set):
        return [r for item in value for r in _references(item)]
    if isinstance(value, gin.ConfigurableReference) and value.selector == "gin.macro":
        return [value]
    return []
