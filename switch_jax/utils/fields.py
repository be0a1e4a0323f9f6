"""Type and range checks for the fields of config dataclasses, which are then frozen."""

import dataclasses
import enum
import functools
import math
import types
import typing
from collections.abc import Callable, Container, Mapping
from typing import Annotated, Any, Literal, NamedTuple, NoReturn

from switch_jax.utils.errors import FieldError, check_choice

_MAX_REPR_LENGTH = 60  # characters of a value in an error message


class Range(NamedTuple):
    """The numbers from `least` to `most`, but for an excluded end."""

    least: float
    most: float
    excluded_end: Literal["least", "most"] | None = None

    def __str__(self) -> str:
        """As in "from 0 to below 1"."""
        start = "above" if self.excluded_end == "least" else "from"
        end = "to below" if self.excluded_end == "most" else "to"
        return f"{start} {self.least:,} {end} {self.most:,}"

    def problem(self, value: float) -> str | None:
        """Why the number is outside the range, as "it must be at least 1"; None if it is inside."""
        if isinstance(value, float) and not math.isfinite(value):
            return "it must be a finite number"
        if value < self.least or (value == self.least and self.excluded_end == "least"):
            bound = "above" if self.excluded_end == "least" else "at least"
            return f"it must be {bound} {self.least:,}"
        if value > self.most or (value == self.most and self.excluded_end == "most"):
            bound = "below" if self.excluded_end == "most" else "at most"
            return f"it must be {bound} {self.most:,}"
        return None

    def check(self, name: str, value: float | None) -> None:
        """Raises FieldError where the value of this name is outside the range; None passes."""
        if value is not None and (problem := self.problem(value)):
            raise FieldError(name, f"= {short_repr(value)}: {problem}")


class OneOf(tuple[str, ...]):
    """The texts that a field may have."""

    def __new__(cls, *choices: str) -> "OneOf":
        return super().__new__(cls, choices)


class With(NamedTuple):
    """What a field goes with.

    The field `other` has one of `values`; (): any value but None and 0. The rule holds where the
    field itself is `of`; None: wherever it is not its default, None or 0.
    """

    other: str
    values: Container[Any] = ()
    of: Any = None

    def is_about(self, value: Any, default: Any) -> bool:
        """Whether the rule holds for a value of the field, which has this default."""
        return bool(value) and value != default if self.of is None else value == self.of


class Use(enum.Enum):
    """What a field of a model is for, where trained parameters go with any value of it.

    A field without such a note belongs to the parameters: with another value they are of another
    model, so that a run does not go on, and no other format can express it.
    """

    SHAPES = "it shows in the names and shapes of the parameters, which are compared"
    TUNABLE = "how the parameters are used; evaluations depend on it"
    TRAINING = "of training alone; evaluations do not depend on it"


class Inherited(NamedTuple):
    """A field that goes with the model: a run that takes its model from another takes this too."""


COUNT = Range(1, 2**31 - 1)  # steps and other counts, which are int32
FACTOR = Range(0, 10**6, excluded_end="least")

Count = Annotated[int, COUNT]
CountOrZero = Annotated[int, Range(0, COUNT.most)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Rate = Annotated[float, Range(0, 1, excluded_end="most")]
Coefficient = Annotated[float, Range(0, 10**6)]
Factor = Annotated[float, FACTOR]


class FrozenDict(dict[Any, Any]):
    """A dict that cannot be changed in place; it can be copied, pickled and written as JSON."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("a config cannot be changed in place: make another one with replace")

    __setitem__ = __delitem__ = __ior__ = _refuse  # type: ignore[assignment]
    clear = pop = popitem = setdefault = update = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


class Checked:
    """Base of a frozen dataclass; raises FieldError on values that its annotations exclude."""

    def __post_init__(self) -> None:
        check_fields(self)


def check_fields(config: Any, name_of: Callable[[str], str] = str.upper) -> None:
    """Checks the fields of a frozen dataclass against their annotations.

    An annotation has the type, and what else must be true of a value: `Annotated[int, Range(1, 9)]`
    or `Annotated[str, OneOf("a", "b"), With("layers")]`, with `| None` where it may be None.

    What was checked stays as it is: a list becomes a tuple, and a dict a `FrozenDict`. FieldError
    where a value has the wrong type or is none of its choices, a number is out of range, NaN or
    infinite, or a field does not go with the value of another one. `name_of` is how messages call
    that one: by its macro.
    """
    hints = hints_of(config.__class__)
    for name, hint in hints.items():
        value = getattr(config, name)
        if not _is_a(value, hint):
            wanted = f"it must be {_kind(hint)}"
            if _without_notes(hint) is int and isinstance(value, float) and value.is_integer():
                wanted += f": write {value:.0f}"
            raise FieldError(name, f"= {short_repr(value)}: {wanted}")
        object.__setattr__(config, name, _frozen(value))
    for name, hint in hints.items():
        value = getattr(config, name)
        for note in notes_of(hint) if value is not None else ():
            if isinstance(note, OneOf):
                check_choice(name, value, note)
            elif isinstance(note, Range) and (problem := note.problem(value)):
                or_none = ", or None" if type(None) in typing.get_args(hint) else ""
                raise FieldError(name, f"= {short_repr(value)}: {problem}{or_none}")
    check_used(config, config, name_of)


def check_used(config: Any, others: Any, name_of: Callable[[str], str] = str.upper) -> None:
    """Raises FieldError where a field does not go `With` one of `others`, if they have that one."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for note in notes_of(hints_of(config.__class__)[field.name]):
            if not (isinstance(note, With) and hasattr(others, note.other)):
                continue
            other = getattr(others, note.other)
            fits = other if note.values == () else other in note.values
            if note.is_about(value, field.default) and not fits:
                problem = f"does not go with {name_of(note.other)} = {short_repr(other)}"
                raise FieldError(field.name, f"= {short_repr(value)} {problem}")


def _frozen(value: Any) -> Any:
    """The same, unchangeable, and printed by repr as gin reads it."""
    if isinstance(value, Mapping):
        return FrozenDict(value)
    if type(value) in (list, tuple):
        return tuple(map(_frozen, value))
    return float(value) if isinstance(value, float) else value  # NumPy's prints its type


def short_repr(value: Any) -> str:
    """repr(value), cut off after 60 characters."""
    text = repr(value)
    return text if len(text) <= _MAX_REPR_LENGTH else f"{text[:_MAX_REPR_LENGTH]}..."


@functools.cache
def hints_of(config: type) -> dict[str, Any]:
    """The annotation of each field of a dataclass, with its notes."""
    hints = typing.get_type_hints(config, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(config)}


_KINDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    type(None): "None",
    Mapping[str, int]: "a dict, as in {'inputs': 512, 'targets': 114}, which a shell needs in "
    "quotes",
    tuple[int, int]: "a pair, as in (10, 20)",
    tuple[str, ...]: 'a tuple of names of modules, as ("my_tasks",)',
    tuple[tuple[str, str | None], ...]: "a list of pairs, as in [('.*/router', None)]",
    tuple[tuple[str, float], ...]: "a list of pairs, as in [('.*/router', 0.1)]",
}


def notes_of(hint: Any) -> list[Range | OneOf | With | Use | Inherited]:
    """What an annotation says beside the type."""
    choices = typing.get_args(hint) if _is_union(hint) else (hint,)
    return [x for choice in choices for x in getattr(choice, "__metadata__", ())]


def uses(config: type) -> list[tuple[str, Use | None]]:
    """The fields of a dataclass, each with its `Use`."""
    return [
        (name, next((note for note in notes_of(hint) if isinstance(note, Use)), None))
        for name, hint in hints_of(config).items()
    ]


def inherited(config: type) -> list[str]:
    """The fields of a dataclass that are `Inherited`."""
    return [
        name
        for name, hint in hints_of(config).items()
        if any(isinstance(note, Inherited) for note in notes_of(hint))
    ]


def _without_notes(hint: Any) -> Any:
    """int for `Annotated[int, Range(1, 9)]`."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _kind(hint: Any) -> str:
    """What a value must be to match an annotation, in words, as "a whole number, or None"."""
    hint = _without_notes(hint)
    if _is_union(hint):
        return ", or ".join(_kind(choice) for choice in typing.get_args(hint))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return f"of type {hint.__name__}"
    return _KINDS[hint]


def _is_a(value: Any, hint: Any) -> bool:
    """Whether the value matches the annotation's type; an int also matches float."""
    hint = _without_notes(hint)
    if _is_union(hint):
        return any(_is_a(value, choice) for choice in typing.get_args(hint))
    if typing.get_origin(hint) is Mapping:
        key, item = typing.get_args(hint)
        return isinstance(value, Mapping) and all(
            _is_a(k, key) and _is_a(v, item) for k, v in value.items()
        )
    if typing.get_origin(hint) is tuple:
        choices = typing.get_args(hint)
        if not isinstance(value, tuple | list):
            return False
        if ... in choices:
            return all(_is_a(v, choices[0]) for v in value)
        return len(value) == len(choices) and all(map(_is_a, value, choices))
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return isinstance(value, hint)
