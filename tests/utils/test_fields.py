"""Types and ranges of the fields of a config."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated

import pytest

from switch_jax.utils.errors import FieldError
from switch_jax.utils.fields import (
    Count,
    OneOf,
    Range,
    Rate,
    Use,
    With,
    check_fields,
    check_used,
    uses,
)


@dataclasses.dataclass
class _Config:
    steps: Count = 1
    rate: Rate | None = 0.5
    color: Annotated[str, OneOf("red", "blue")] | None = None
    flag: bool = False
    lengths: Mapping[str, int] = dataclasses.field(default_factory=dict)
    pair: tuple[int, int] | None = None
    shade: Annotated[int, With("color", ("blue",)), With("flag"), Use.TUNABLE] | None = 3
    model_size: Annotated[int, With("size")] = 1

    def __post_init__(self):
        check_fields(self)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, r"steps = 0: it must be at least 1$"),
        ({"steps": 2**31}, r"steps = 2147483648: it must be at most 2,147,483,647$"),
        ({"steps": 1.0}, r"steps = 1.0: it must be a whole number: write 1$"),
        ({"steps": True}, r"steps = True: it must be a whole number$"),
        ({"steps": None}, r"steps = None: it must be a whole number$"),
        ({"rate": 1}, r"rate = 1: it must be below 1, or None"),
        ({"rate": -1e-9}, r"rate = -1e-09: it must be at least 0, or None"),
        ({"rate": math.nan}, r"rate = nan: it must be a finite number"),
        ({"rate": 10**400}, r"rate = 1000.*\.\.\.: it must be below 1"),
        ({"rate": "0.5"}, r"rate = '0.5': it must be a number"),
        ({"color": "redd"}, r"color = 'redd' is not known; write one of red, blue$"),
        ({"color": 1}, r"color = 1: it must be a text in quotes, or None"),
        ({"flag": 1}, r"flag = 1: it must be True or False"),
        ({"lengths": {"a": "b"}}, r"lengths = {'a': 'b'}: it must be a dict, as in"),
        ({"pair": (1, 2, 3)}, r"pair = \(1, 2, 3\): it must be a pair, as in"),
        ({"shade": 4, "color": "red"}, r"shade = 4 does not go with COLOR = 'red'$"),
        ({"shade": 4, "color": "blue"}, r"shade = 4 does not go with FLAG = False$"),
    ],
)
def test_an_error_names_the_field_and_its_value(changes, message):
    with pytest.raises(FieldError, match=message) as error:
        _Config(**changes)
    assert error.value.field == next(iter(changes))
    assert str(error.value) == f"{error.value.field} {error.value.problem}"


def test_valid_values_pass():
    _Config(steps=2**31 - 1, rate=0, pair=[1, 2], lengths={"a": 1})
    _Config(rate=None)
    for shade in (None, 0, 3):
        _Config(shade=shade)
    _Config(shade=4, color="blue", flag=True)


def test_a_field_goes_with_that_of_another_config():
    @dataclasses.dataclass
    class Other:
        size: int = 0

    check_used(_Config(model_size=1), Other())
    check_used(_Config(model_size=2), Other(5))
    with pytest.raises(FieldError, match="model_size = 2 does not go with SIZE = 0$"):
        check_used(_Config(model_size=2), Other())


def test_a_rule_of_one_value_alone():
    @dataclasses.dataclass
    class Shape:
        sides: int = 4
        kind: Annotated[str, With("sides", (4,), of="square")] = "square"

    for kind, sides in [("square", 4), ("triangle", 3), ("", 3)]:
        check_fields(Shape(sides, kind))
    with pytest.raises(FieldError, match="^kind = 'square' does not go with SIDES = 3$"):
        check_fields(Shape(sides=3))  # though it is the default


def test_the_use_of_each_field():
    assert {name: use for name, use in uses(_Config) if use} == {"shade": Use.TUNABLE}


def test_an_open_end_is_not_in_the_range():
    assert Range(0, 1, excluded_end="least").problem(0) == "it must be above 0"
    assert Range(0, 1, excluded_end="least").problem(1) is None
    assert Range(0, 1).problem(0) is None
