"""Checks of what JSON files hold: of which type a value is, and between which bounds."""

import dataclasses
import json
import reprlib
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

# From a value's name and the value to what is read of it; raises Misfit.
Check = Callable[[str, Any], Any]

LARGEST = 3.5e38  # float32 holds nothing larger, and a chart's axis overflows far above it
MOST = 10**15  # steps, tokens, parameters: whole numbers that float64 holds exactly
_DEEPEST = 3


class Misfit(ValueError):
    """What is wrong with a value, as in "step is 'x', not a whole number"."""


@dataclasses.dataclass(frozen=True)
class Object:
    """A check of JSON objects.

    Attributes:
      required, optional: a check for each field that is read.
      others: of the other fields; None: they are not read.
    """

    required: Mapping[str, Check] = dataclasses.field(default_factory=dict)
    optional: Mapping[str, Check] = dataclasses.field(default_factory=dict)
    others: Check | None = None

    def __call__(self, name: str, value: Any) -> dict[str, Any]:
        """The fields that are read; raises Misfit for the first that does not fit."""
        found, misfits = self.fitting(name, value)
        if misfits:
            raise misfits[0]
        return found

    def fitting(self, name: str, value: Any) -> tuple[dict[str, Any], list[Misfit]]:
        """The fields that fit, and what is wrong with the others; raises Misfit if it is no object.

        Args:
          name: of the object; "" for one that is a file or a line of its own.
        """
        if not isinstance(value, dict):
            raise _misfit(name, value, "not an object")
        found, misfits = {}, []
        checks = {**self.required, **self.optional}
        for key in self.required:
            if key not in value:
                misfits.append(Misfit(f"{name or 'it'} has no {key!r}"))
        for key, item in value.items():
            check = checks.get(key, self.others)
            if check is None:
                continue
            try:
                shown = text("the name of a field", key)
                found[shown] = check(f"{name}.{shown}" if name else shown, item)
            except Misfit as misfit:
                misfits.append(misfit)
        return found, misfits


def parsed_json(data: bytes) -> Any:
    """The value of a JSON text; raises Misfit where it is none."""
    try:
        return json.loads(data.decode())
    except UnicodeDecodeError as error:
        raise Misfit("it is not UTF-8") from error
    except RecursionError as error:
        raise Misfit("it is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise Misfit(f"it is not JSON ({error})") from error
    except ValueError as error:
        raise Misfit("it holds a number of too many digits") from error


def number(name: str, value: Any) -> int | float | None:
    """A number within float32's range; None for null, NaN and infinities."""
    if value is None:
        return None
    if not _is_number(value):
        raise _misfit(name, value, "not a number")
    if value != value or value in (float("inf"), float("-inf")):
        return None
    if not -LARGEST <= value <= LARGEST:
        raise _misfit(name, value, f"beyond {LARGEST}, the most that is read")
    return value


def between(low: float, high: float) -> Check:
    """A number between these bounds."""

    def check(name: str, value: Any) -> int | float:
        if not _is_number(value) or not low <= value <= high:
            raise _misfit(name, value, f"not a number from {low:g} to {high:g}")
        return value

    return check


def whole(name: str, value: Any) -> int:
    """A whole number from 0 to 10^15."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise _misfit(name, value, "not a whole number")
    if not 0 <= value <= MOST:
        raise _misfit(name, value, "not from 0 to 10^15")
    return value


def text(name: str, value: Any) -> str:
    """Text of at most 2,000 characters, see `clean`."""
    if not isinstance(value, str):
        raise _misfit(name, value, "not text")
    if len(value) > 2000:
        raise _misfit(name, value, f"text of {len(value)} characters, above 2000")
    return clean(value)


def plain(name: str, value: Any, depth: int = 0) -> Any:
    """Null, a truth value, a number, text, or lists and objects of them, three deep at most."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return text(name, value)
    if isinstance(value, int | float):
        return number(name, value)
    if depth == _DEEPEST:
        raise Misfit(f"{name} is nested too deeply")
    if isinstance(value, list):
        return [plain(name, item, depth + 1) for item in value]
    return {
        text("the name of a field", key): plain(f"{name}.{clean(key)}", item, depth + 1)
        for key, item in value.items()
    }


def or_null(check: Check) -> Check:
    """The check, or null."""
    return lambda name, value: None if value is None else check(name, value)


def one_of(*words: str) -> Check:
    """One of these texts."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise _misfit(name, value, f"none of {', '.join(words)}")
        return value

    return check


def list_of(check: Check) -> Check:
    """A list whose items pass the check."""

    def checked(name: str, value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise _misfit(name, value, "not a list")
        return [check(f"{name}[{i}]", item) for i, item in enumerate(value)]

    return checked


def clean(words: str, kept: str = "") -> str:
    """The text without what a page or a terminal cannot show, or would obey.

    Control characters, lone surrogates and what is no character become U+FFFD, but those in `kept`.
    """
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(c) in ("Cc", "Cs", "Cn") and c not in kept
        else c
        for c in words
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _misfit(name: str, value: Any, wrong: str) -> Misfit:
    # reprlib: short, and not deep, whatever the value is.
    shown = "null" if value is None else reprlib.repr(value)
    return Misfit(f"{name or 'it'} is {clean(shown)}, {wrong}")
