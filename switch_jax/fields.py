"""What the fields of a config may hold: types and ranges, checked as it is made."""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

from switch_jax.errors import FieldError

_MOST_CHARACTERS = 60  # of a value in a message


class Range(NamedTuple):
    """The numbers from `least` to `most`, both among them, or without the two ends.

    Attributes:
      least, most: the ends.
      is_open: 'least' or 'most' where that end is not in the range itself.
    """

    least: float
    most: float
    is_open: str = ""

    def problem(self, value: float) -> str | None:
        """What is wrong with the number, as "it must be at least 1"; None: nothing."""
        if isinstance(value, float) and not math.isfinite(value):
            return "it must be a finite number"
        if value < self.least or (value == self.least and self.is_open == "least"):
            return f"it must be {'above' if self.is_open == 'least' else 'at least'} {self.least:,}"
        if value > self.most or (value == self.most and self.is_open == "most"):
            return f"it must be {'below' if self.is_open == 'most' else 'at most'} {self.most:,}"
        return None


COUNT = Range(1, 2**31 - 1)  # what is counted in int32, such as steps
SEED = Range(0, 2**32 - 1)
RATE = Range(0, 1, is_open="most")
COEFFICIENT = Range(0, 10**6)
FACTOR = Range(0, 10**6, is_open="least")


def check_fields(config: Any, **ranges: Range) -> None:
    """Checks that each field of a dataclass holds what it is declared with.

    Args:
      config: an instance of a dataclass.
      ranges: by field, for those that are numbers; None passes where the field may be None.

    Raises:
      FieldError: a value of another type, a number out of its range, NaN or infinity.
    """
    hints = _hints(config.__class__)
    for name, hint in hints.items():
        value = getattr(config, name)
        if not _is_a(value, hint):
            raise FieldError(name, f"= {shown(value)}: it must be of type {_type_name(hint)}")
    for name, allowed in ranges.items():
        value = getattr(config, name)
        problem = None if value is None else allowed.problem(value)
        if problem:
            can_be_none = type(None) in typing.get_args(hints[name])
            raise FieldError(
                name, f"= {shown(value)}: {problem}" + (", or None" if can_be_none else "")
            )


def shown(value: Any) -> str:
    """The value as Python writes it, cut off where it is long."""
    text = written(value)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."


def written(value: Any) -> str:
    """The value as Python writes it."""
    try:
        return repr(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "an integer of thousands of digits"


@functools.cache
def _hints(config: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(config)
    return {field.name: hints[field.name] for field in dataclasses.fields(config)}


def _type_name(hint: Any) -> str:
    if hint is bool:
        return "bool (True or False)"
    return getattr(hint, "__name__", str(hint))


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
