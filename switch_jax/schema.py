"""Checks of JSON values that come from a file: the type of each value, and its bounds."""

import dataclasses
import functools
import json
import reprlib
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Protocol

MAX_NUMBER = 3.5e38  # float32 holds nothing larger, and a chart's axis overflows far above it
MAX_INTEGER = 10**15  # steps, tokens, parameters: integers that float64 holds exactly
MAX_CHARACTERS = 2000  # of a string
_MAX_DEPTH = 3  # of lists and objects in each other, where the schema does not describe them


class SchemaError(ValueError):
    """What is wrong with a value, as in "step is 'x', not a whole number"."""


class Check(Protocol):
    """A check of a JSON value.

    Attributes:
      type_name: the type as docs/run_folder.md writes it, as in "list of numbers".
    """

    @property
    def type_name(self) -> str: ...

    def __call__(self, name: str, value: Any) -> Any:
        """The value as readers get it; raises SchemaError, which calls the value `name`."""


@dataclasses.dataclass(frozen=True)
class ValueCheck:
    """A check of a value that is no object with fields of its own; see `Check`."""

    type_name: str
    read: Callable[[str, Any], Any]

    def __call__(self, name: str, value: Any) -> Any:
        return self.read(name, value)


@dataclasses.dataclass(frozen=True)
class Object:
    """A check of JSON objects; see `Check`.

    Attributes:
      required, optional: a check for each field that is read.
      unchecked: fields that are written, but that readers treat as any other field.
      others: the check of all other fields; None: they are not read.
      consistency: raises SchemaError where the fields, each valid by itself, do not fit together.
      nullable: whether null may stand in place of the object.
    """

    required: Mapping[str, Check] = dataclasses.field(default_factory=dict)
    optional: Mapping[str, Check] = dataclasses.field(default_factory=dict)
    unchecked: Mapping[str, Check] = dataclasses.field(default_factory=dict)
    others: Check | None = None
    consistency: Callable[[str, Mapping[str, Any]], None] | None = None
    nullable: bool = False

    @property
    def fields(self) -> dict[str, Check]:
        """All fields that are known by name."""
        return {**self.required, **self.optional, **self.unchecked}

    @property
    def type_name(self) -> str:
        items = f" of {_plural(self.others.type_name)}" if self.others and not self.fields else ""
        return f"object{items}{' or null' if self.nullable else ''}"

    def __call__(self, name: str, value: Any) -> dict[str, Any] | None:
        return None if value is None and self.nullable else self.valid_object(name, value)

    def valid_object(self, name: str, value: Any) -> dict[str, Any]:
        """The fields that are read; raises SchemaError for the first that is wrong."""
        valid, errors = self.valid_fields(name, value)
        if errors:
            raise errors[0]
        return valid

    def valid_fields(self, name: str, value: Any) -> tuple[dict[str, Any], list[SchemaError]]:
        """The fields that are valid, and what is wrong with the others.

        Args:
          name: of the object; "" for one that is a whole file or line.
          value: what stands in its place.

        Raises:
          SchemaError: it is no object.
        """
        if not isinstance(value, dict):
            raise _error(name, value, "not an object")
        valid, errors = {}, []
        checks = {**self.required, **self.optional}
        for key in self.required:
            if key not in value:
                errors.append(SchemaError(f"{name or 'it'} has no {key!r}"))
        for key, item in value.items():
            check = checks.get(key, self.others)
            if check is None:
                continue
            try:
                printable_key = string("the name of a field", key)
                path = f"{name}.{printable_key}" if name else printable_key
                valid[printable_key] = check(path, item)
            except SchemaError as error:
                errors.append(error)
        if self.consistency and not errors:
            self.consistency(name, valid)
        return valid, errors


def parse_json(data: bytes) -> Any:
    """The value of a JSON text.

    Raises:
      SchemaError: it is not JSON in UTF-8.
    """
    try:
        return json.loads(data.decode())
    except UnicodeDecodeError as error:
        raise SchemaError("it is not UTF-8") from error
    except RecursionError as error:
        raise SchemaError("it is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise SchemaError(f"it is not JSON ({error})") from error
    except ValueError as error:
        raise SchemaError("it holds a number of too many digits") from error


@functools.partial(ValueCheck, "number")
def number(name: str, value: Any) -> int | float | None:
    """A number within float32's range; None for null, NaN and infinities."""
    if value is None:
        return None
    if not _is_number(value):
        raise _error(name, value, "not a number")
    if value != value or value in (float("inf"), float("-inf")):
        return None
    if not -MAX_NUMBER <= value <= MAX_NUMBER:
        raise _error(name, value, f"beyond {MAX_NUMBER}, the most that is read")
    return value


def number_between(low: float, high: float) -> ValueCheck:
    """A number between these bounds, and not null."""

    def read(name: str, value: Any) -> int | float:
        if not _is_number(value) or not low <= value <= high:
            raise _error(name, value, f"not a number from {low:g} to {high:g}")
        return value

    return ValueCheck("number", read)


@functools.partial(ValueCheck, "integer")
def integer(name: str, value: Any) -> int:
    """An integer from 0 to 10^15."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise _error(name, value, "not a whole number")
    if not 0 <= value <= MAX_INTEGER:
        raise _error(name, value, "not from 0 to 10^15")
    return value


@functools.partial(ValueCheck, "string")
def string(name: str, value: Any) -> str:
    """A string of at most 2,000 characters, see `printable`."""
    if not isinstance(value, str):
        raise _error(name, value, "not text")
    if len(value) > MAX_CHARACTERS:
        raise _error(name, value, f"text of {len(value)} characters, above {MAX_CHARACTERS}")
    return printable(value)


def enum(*values: str) -> ValueCheck:
    """One of these strings."""

    def read(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in values:
            raise _error(name, value, f"none of {', '.join(values)}")
        return value

    return ValueCheck(f"string: {', '.join(values)}", read)


def nullable(check: ValueCheck) -> ValueCheck:
    """The check, or null."""
    return ValueCheck(
        f"{check.type_name} or null",
        lambda name, value: None if value is None else check(name, value),
    )


def list_of(check: Check) -> ValueCheck:
    """A list whose items pass the check."""

    def read(name: str, value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise _error(name, value, "not a list")
        return [check(f"{name}[{i}]", item) for i, item in enumerate(value)]

    return ValueCheck(f"list of {_plural(check.type_name)}", read)


@functools.partial(ValueCheck, "any")
def any_value(name: str, value: Any) -> Any:
    """Null, a boolean, number or string; or lists and objects of them, at most three deep."""
    return _any_value(name, value, _MAX_DEPTH)


def _any_value(name: str, value: Any, max_depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return string(name, value)
    if isinstance(value, int | float):
        return number(name, value)
    if max_depth == 0:
        raise SchemaError(f"{name} is nested too deeply")
    if isinstance(value, list):
        return [_any_value(name, item, max_depth - 1) for item in value]
    return {
        string("the name of a field", key): _any_value(
            f"{name}.{printable(key)}", item, max_depth - 1
        )
        for key, item in value.items()
    }


def printable(text: str, keep: str = "") -> str:
    """The text without the characters that a page or a terminal cannot show, or would obey.

    Control characters, lone surrogates and code points without a character become U+FFFD.

    Args:
      text: any text.
      keep: characters that stay as they are.
    """
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(c) in ("Cc", "Cs", "Cn") and c not in keep
        else c
        for c in text
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plural(type_name: str) -> str:
    """ "list of numbers" -> "lists of numbers"."""
    first, space, rest = type_name.partition(" ")
    return f"{first}s{space}{rest}"


def _error(name: str, value: Any, problem: str) -> SchemaError:
    # reprlib: short, and not deep, whatever the value is.
    shown = "null" if value is None else reprlib.repr(value)
    return SchemaError(f"{name or 'it'} is {printable(shown)}, {problem}")
