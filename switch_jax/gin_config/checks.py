"""What is checked of gin files beyond gin's own grammar: their order, and the macros in them."""

import dataclasses
import graphlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from switch_jax.config import ModelConfig, RunConfig
from switch_jax.errors import UserError
from switch_jax.fields import safe_repr, short_repr
from switch_jax.gin_config import gin_internals
from switch_jax.gin_config.packaged import is_packaged, packaged_macros
from switch_jax.gin_config.suggestions import macro_suggestion


def describes(config: Any, bindings: Mapping[str, Any]) -> bool:
    """Whether the bindings set every field of a dataclass that has no default."""
    return all(
        f"{config.__name__}.{field.name}" in bindings
        for field in dataclasses.fields(config)
        if field.default is dataclasses.MISSING
    )


def check_order(files: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Checks which of the files replace values of earlier ones.

    A file that describes a whole model, itself or by its includes, must come before the files that
    change the model. The file of a run may replace values of the model's file, and a packaged file
    that describes neither, such as runs/muon.gin, those of both. All other replacements are
    printed, one file on each line.

    Args:
      files: each with what it sets, its includes included.

    Raises:
      UserError: a model's file comes after a file whose values it would replace.
    """
    earlier_values: dict[str, tuple[Any, str]] = {}  # value and file, by name
    models, runs = set(), set()  # files that describe a whole model or run, or both
    for file, bindings in files:
        is_model, is_run = (describes(config, bindings) for config in (ModelConfig, RunConfig))
        is_recipe = not (is_model or is_run) and is_packaged(file)
        replaced: dict[str, list[str]] = {}  # by the earlier file
        for name, value in bindings.items():
            old, earlier = earlier_values.get(name, (value, file))
            if safe_repr(old) != safe_repr(value) and not gin_internals.is_required(old):
                replaced.setdefault(earlier, []).append(
                    f"{name} = {short_repr(old)} by {short_repr(value)}"
                )
        for earlier, changes in replaced.items():
            note = f"{file} replaces what {earlier} sets: {', '.join(changes)}"
            if is_model and earlier in models:
                raise UserError(
                    f"{note}; both describe a whole model: give one of them, or write a file that "
                    "includes one and sets what differs"
                )
            if is_model:
                raise UserError(
                    f"{note}; the file with the model goes first: write --gin_file={file} "
                    f"--gin_file={earlier}"
                )
            if not is_recipe and (earlier not in models or earlier in runs):
                print(f"note: {note}", file=sys.stderr)
        if is_model:
            models.add(file)
        if is_run:
            runs.add(file)
        earlier_values |= {name: (value, file) for name, value in bindings.items()}


def check_macros() -> None:
    """Raises UserError if no value and no packaged file refers to a macro.

    Files of runs set macros that only some models use, and may go beside all of them.
    """
    used = gin_internals.used_macros()
    unused = gin_internals.macros().keys() - used
    if not unused:
        return  # no packaged file is read
    known = used | packaged_macros()
    for name in sorted(unused - known):
        suggestion = macro_suggestion(name, sorted(known))
        raise UserError(f"nothing uses the macro {name}{suggestion}")


def unset_macros() -> list[str]:
    """Macros that a file requires and nothing sets."""
    macros = gin_internals.macros()
    return [name for name in sorted(macros) if gin_internals.is_required(macros[name])]


def check_values() -> None:
    """Raises UserError if a macro has no value or refers to itself, or a value is a function."""
    unset = unset_macros()
    if unset:
        flags = " ".join(f"--gin.{name}=..." for name in unset)
        raise UserError(f"{' and '.join(unset)} not set: write {flags}")
    for name, value in gin_internals.bindings().items():
        if gin_internals.is_function(value):
            raise UserError(
                f"{name} = {value}: a value must not be a function; write {value}() for its result"
            )
    macros = gin_internals.macros()
    for name in sorted(gin_internals.used_macros() - set(macros)):
        raise UserError(
            f"no gin file sets the macro {name}{macro_suggestion(name, sorted(macros))}"
        )
    sorter = graphlib.TopologicalSorter(
        {name: gin_internals.references(value) for name, value in macros.items()}
    )
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        cycle = " = %".join(reversed(error.args[1]))
        raise UserError(f"{cycle}: the macros refer to each other; give one a value") from None
