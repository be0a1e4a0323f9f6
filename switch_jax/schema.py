"""Checks of JSON values that come from a file: the type of each value, and its bounds.

Without a library: errors of msgspec lack the value and the key in a dict, and it reads no NaN.
Those of pydantic have both, but importing it and making the types takes a tenth of a second.
"""

import dataclasses
import functools
import json
import math
import reprlib
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

MAX_NUMBER = 3.5e38  # float32 holds nothing larger, and a chart's axis overflows far above it
MAX_INTEGER = 10**15  # steps, tokens, parameters: integers that float64 holds exactly
MAX_CHARACTERS = 2000  # of a string
_MAX_DEPTH = 3  # of lists and objects in each other, where the schema does not describe them


class SchemaError(ValueError):
    """What is wrong with a value, as in "step is 'x', not a whole number".

    Attributes:
      problem: the message without its first word, which is the place of the value, or "it".
      path: that place in the whole, as in "router.encoder.layers[0]".
    """

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(f"{path or 'it'} {problem}")
        self.problem, self.path = problem, path

    def inside(self, place: str) -> "SchemaError":
        """The error of what has the value at `place`, the name of a field or "[0]"."""
        dot = "." if self.path and not self.path.startswith("[") else ""
        return SchemaError(self.problem, f"{place}{dot}{self.path}")


@dataclasses.dataclass(frozen=True)
class ValueCheck:
    """A check of a JSON value that is no object with fields of its own.

    Attributes:
      type_name: the type as docs/run_folder.md writes it, as in "list of numbers".
      read: the value as readers get it; raises SchemaError.
    """

    type_name: str
    read: Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class Object:
    """A check of JSON objects; see `ValueCheck`.

    Attributes:
      required, optional: a check for each field that is read.
      unchecked: fields that are written, but that readers treat as any other field.
      others: the check of all other fields; None: they are not read.
      consistency: raises SchemaError where the fields, each valid by itself, do not fit together.
      nullable: whether null may stand in place of the object.
    """

    required: Mapping[str, "Check"] = dataclasses.field(default_factory=dict)
    optional: Mapping[str, "Check"] = dataclasses.field(default_factory=dict)
    unchecked: Mapping[str, "Check"] = dataclasses.field(default_factory=dict)
    others: "Check | None" = None
    consistency: Callable[[Mapping[str, Any]], None] | None = None
    nullable: bool = False

    @property
    def fields(self) -> dict[str, "Check"]:
        """All fields that are known by name."""
        return {**self._checked, **self.unchecked}

    @functools.cached_property
    def _checked(self) -> dict[str, "Check"]:
        return {**self.required, **self.optional}

    @property
    def type_name(self) -> str:
        items = f" of {_plural(self.others.type_name)}" if self.others and not self.fields else ""
        return f"object{items}{' or null' if self.nullable else ''}"

    def read(self, value: Any) -> Any:
        """The fields that are read; raises SchemaError for the first that is wrong."""
        if value is None and self.nullable:
            return None
        valid, errors = self.valid_fields(value)
        if errors:
            raise errors[0]
        return valid

    def valid_fields(self, value: Any) -> tuple[dict[str, Any], list[SchemaError]]:
        """The fields that are valid, and what is wrong with the others.

        Raises:
          SchemaError: the value is no object.
        """
        if not isinstance(value, dict):
            raise _error(value, "not an object")
        valid = {}
        errors = [SchemaError(f"has no {key!r}") for key in self.required if key not in value]
        for key, item in value.items():
            check = self._checked.get(key, self.others)
            if check is None:
                continue
            place = "(name of a field)"
            try:
                place = key if key in self._checked else string.read(key)
                valid[place] = check.read(item)
            except SchemaError as error:
                errors.append(error.inside(place))
        if self.consistency and not errors:
            self.consistency(valid)
        return valid, errors


Check = ValueCheck | Object


def parse_json(data: bytes) -> Any:
    """The value of a JSON text.

    Raises:
      SchemaError: it is not JSON in UTF-8.
    """
    try:
        return json.loads(data.decode())
    except UnicodeDecodeError as error:
        raise SchemaError("is not UTF-8") from error
    except RecursionError as error:
        raise SchemaError("is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise SchemaError(f"is not JSON ({error})") from error
    except ValueError as error:
        raise SchemaError("holds a number of too many digits") from error


@functools.partial(ValueCheck, "number")
def number(value: Any) -> int | float | None:
    """A number within float32's range; None for null, NaN and infinities."""
    if value is None or (type(value) is float and not math.isfinite(value)):
        return None
    if type(value) not in (int, float):
        raise _error(value, "not a number")
    if not -MAX_NUMBER <= value <= MAX_NUMBER:
        raise _error(value, f"beyond {MAX_NUMBER}, the most that is read")
    return value


def number_between(low: float, high: float) -> ValueCheck:
    """A number between these bounds, and not null."""

    def read(value: Any) -> int | float:
        if type(value) not in (int, float) or not low <= value <= high:
            raise _error(value, f"not a number from {low:g} to {high:g}")
        return value

    return ValueCheck("number", read)


@functools.partial(ValueCheck, "integer")
def integer(value: Any) -> int:
    """An integer from 0 to 10^15."""
    if type(value) is not int:
        raise _error(value, "not a whole number")
    if not 0 <= value <= MAX_INTEGER:
        raise _error(value, "not from 0 to 10^15")
    return value


@functools.partial(ValueCheck, "string")
def string(value: Any) -> str:
    """A string of at most 2,000 characters, see `printable`."""
    if not isinstance(value, str):
        raise _error(value, "not text")
    if len(value) > MAX_CHARACTERS:
        raise _error(value, f"text of {len(value)} characters, above {MAX_CHARACTERS}")
    return printable(value)


def enum(*values: str) -> ValueCheck:
    """One of these strings."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in values:
            raise _error(value, f"none of {', '.join(values)}")
        return value

    return ValueCheck(f"string: {', '.join(values)}", read)


def nullable(check: ValueCheck) -> ValueCheck:
    """The check, or null."""
    return ValueCheck(
        f"{check.type_name} or null", lambda value: None if value is None else check.read(value)
    )


def list_of(check: Check) -> ValueCheck:
    """A list whose items pass the check."""

    def read(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise _error(value, "not a list")
        items: list[Any] = []
        try:
            for item in value:
                items.append(check.read(item))
        except SchemaError as error:
            raise error.inside(f"[{len(items)}]") from None
        return items

    return ValueCheck(f"list of {_plural(check.type_name)}", read)


def _any_value(value: Any, max_depth: int = _MAX_DEPTH) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return string.read(value)
    if isinstance(value, int | float):
        return number.read(value)
    if max_depth == 0:
        raise SchemaError("is nested too deeply")
    items = ValueCheck("any", functools.partial(_any_value, max_depth=max_depth - 1))
    return (list_of(items) if isinstance(value, list) else Object(others=items)).read(value)


# Null, a boolean, number or string; or lists and objects of them, at most three deep.
any_value = ValueCheck("any", _any_value)


def printable(text: str, keep: str = "") -> str:
    """The text without the characters that a page or a terminal cannot show, or would obey.

    Control characters, lone surrogates and code points without a character become U+FFFD.

    Args:
      text: any text.
      keep: characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(c) in ("Cc", "Cs", "Cn") and c not in keep
        else c
        for c in text
    )


def _plural(type_name: str) -> str:
    """ "list of numbers" -> "lists of numbers"."""
    first, space, rest = type_name.partition(" ")
    return f"{first}s{space}{rest}"


def _error(value: Any, problem: str) -> SchemaError:
    # reprlib: short, and not deep, whatever the value is.
    shown = "null" if value is None else reprlib.repr(value)
    return SchemaError(f"is {printable(shown)}, {problem}")
