"""Gin's private names, where no test of gin files (test_run_config.py) shows what they do."""

import contextlib

import pytest

from gin import config as gin
from switch_jax.gin_config import gin_internals


@pytest.fixture(autouse=True)
def cleared():
    gin.clear_config()
    yield
    gin.clear_config()


def test_the_state_is_what_it_was_before():
    gin.parse_config("import math\nA = 3\nRunConfig.random_seed = %A")
    gin.finalize()
    folders = list(gin._LOCATION_PREFIXES)
    before = gin.config_str()
    with contextlib.suppress(ZeroDivisionError), gin_internals.state_restored():
        gin.clear_config()
        gin.parse_config("import json\nB = 4\nRunConfig.random_seed = %B")
        gin._LOCATION_PREFIXES[:] = ["elsewhere"]
        raise ZeroDivisionError
    assert gin.config_str() == before and "import math" in before
    assert gin.config_is_locked() and folders == gin._LOCATION_PREFIXES


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" -5.5 ", -5.5),
        ("{'a': 1,\n 'b': [2]}", {"a": 1, "b": [2]}),
        ("'a' # five", "a"),
        ("/tmp/run", "/tmp/run"),
        ("it's", "it's"),
        ("5 6", "5 6"),
        ("5\nB = 6", "5\nB = 6"),
        ("(a", "(a"),
        ("", ""),
    ],
)
def test_a_text_is_one_value_or_a_string(text, value):
    assert gin_internals.value_of(text) == value
