"""Checks of gin files beyond the grammar of gin: their order, and the macros in them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from switch_jax.config import ModelConfig
from switch_jax.gin_config import gin_internals
from switch_jax.gin_config.packaged import packaged_macros
from switch_jax.utils.errors import UserError, did_you_mean
from switch_jax.utils.fields import short_repr


def describes_model(bindings: Mapping[str, Any]) -> bool:
    """Whether the bindings set every field of a model that has no default."""
    return all(
        f"ModelConfig.{field.name}" in bindings
        for field in dataclasses.fields(ModelConfig)
        if field.default is dataclasses.MISSING
    )


def check_order(files: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Raises UserError where a file of a whole model would replace what an earlier one sets.

    The files are given with what they and their includes set.
    """
    earlier: dict[str, tuple[Any, str]] = {}  # value and file, by name
    for file, bindings in files:
        if describes_model(bindings):
            for name, value in bindings.items():
                old, other = earlier.get(name, (value, file))
                if repr(old) != repr(value) and not gin_internals.is_required(old):
                    raise UserError(
                        f"{file} describes a whole model, and replaces what {other} sets: {name} "
                        f"= {short_repr(old)} by {short_repr(value)}; give one model, before other "
                        "files"
                    )
        earlier |= {name: (value, file) for name, value in bindings.items()}


def check_macros() -> None:
    """Raises UserError if no value and no packaged file refers to a macro.

    Files of runs set macros that only some models use, and may go beside all of them; but nobody
    sets NUM_EXPERTS for a dense model.
    """
    macros, used = gin_internals.macros(), gin_internals.used_macros()
    unused = macros.keys() - used
    if "NUM_EXPERTS" in unused:
        raise UserError(
            f"NUM_EXPERTS = {macros['NUM_EXPERTS']} is for a model with experts, and the gin files "
            "describe a dense one"
        )
    if not unused:
        return  # no packaged file is read
    known = used | packaged_macros()
    for name in sorted(unused - known):
        raise UserError(f"nothing uses the macro {name}{did_you_mean(name, sorted(known))}")


def unset_macros() -> list[str]:
    """Macros that a file requires and nothing sets."""
    macros = gin_internals.macros()
    return [name for name in sorted(macros) if gin_internals.is_required(macros[name])]


def check_values() -> None:
    """Raises UserError if a macro has no value."""
    if unset := unset_macros():
        flags = " ".join(f"--gin.{name}=..." for name in unset)
        raise UserError(f"{' and '.join(unset)} not set: write {flags}")
    macros = gin_internals.macros()
    for name in sorted(gin_internals.used_macros() - set(macros)):
        raise UserError(f"no gin file sets the macro {name}{did_you_mean(name, sorted(macros))}")
