"""The private names of gin that switch_jax uses exist and work as expected.

A failure names the release of gin; only switch_jax/gin_config/gin_internals.py is to be changed.
"""

import contextlib
import importlib.metadata
import os
import tokenize

import pytest

from gin import config as gin
from switch_jax import gin_config
from switch_jax.gin_config import gin_internals

CHANGED = f"gin-config {importlib.metadata.version('gin-config')} has changed "


@pytest.fixture(autouse=True)
def cleared():
    gin.clear_config()
    yield
    gin.clear_config()


def test_references_in_bindings_and_macros_are_not_resolved():
    gin.parse_config("A = %B\nB = [1, {'x': %C}]\nC = %gin.REQUIRED\nRunConfig.random_seed = %A")
    bindings = gin_internals.bindings()
    assert set(bindings) == {"A", "B", "C", "RunConfig.random_seed"}, CHANGED + "_CONFIG"
    assert set(gin_internals.macros()) == {"A", "B", "C"}, CHANGED + "_CONFIG"
    assert gin_internals.references(bindings) == ["B", "C", "A"], CHANGED + "references"
    required = [name for name, value in bindings.items() if gin_internals.is_required(value)]
    assert required == ["C"], CHANGED + "%gin.REQUIRED"


def test_values_are_recorded_as_statements_set_them(tmp_path):
    inner, outer = tmp_path / "inner.gin", tmp_path / "outer.gin"
    inner.write_text("A = 1\nB = 2\nC = %gin.REQUIRED\nRunConfig.random_seed = %A\n")
    outer.write_text(f"B = 3\ninclude '{inner}'\nA = 4\n")
    names, bind = [], gin.bind_parameter
    with gin_internals.setting_recorded(lambda name, value: names.append(name)):
        gin.parse_config_file(str(outer))
    assert names == ["B", "A", "B", "C", "RunConfig.random_seed", "A"], CHANGED + "bind_parameter"
    assert gin.bind_parameter is bind


def test_values_that_an_imported_module_sets_for_itself_are_not_recorded():
    values = {}
    with gin_internals.setting_recorded(values.__setitem__):
        gin.parse_config("A = 1")
        with gin_internals.state_restored(), gin_internals.setting_recorded({}.__setitem__):
            gin.parse_config("B = 2")
        with gin_internals.state_restored():
            gin.bind_parameter(("C", gin_internals.MACRO, "value"), 3)
        gin.parse_config("D = 4")
    assert values == {"A": 1, "D": 4}


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
    assert gin.config_str() == before and "import math" in before, CHANGED + "_IMPORTS"
    assert gin.config_is_locked() and folders == gin._LOCATION_PREFIXES, CHANGED + "locking"


def test_files_are_read_with_the_reader_from_the_folders(tmp_path):
    read = []

    @contextlib.contextmanager
    def reader(path):
        read.append(path)
        with open(path) as file:
            yield file

    (tmp_path / "a.gin").write_text("A = 5\n")
    gin_internals.read_files_with(reader, os.path.isfile, ["nowhere", str(tmp_path)])
    gin.parse_config_file("a.gin")
    assert read == [str(tmp_path / "a.gin")], CHANGED + "_FILE_READERS or _LOCATION_PREFIXES"
    assert gin_internals.macros() == {"A": 5}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
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
    assert gin_internals.value_of(text) == value, CHANGED + "ConfigParser"


def test_an_unclosed_bracket_is_an_error():
    with pytest.raises(tokenize.TokenError):
        gin_internals.value_of("{'a': 1")


def test_the_import_that_failed_is_found():
    with pytest.raises(ModuleNotFoundError) as failure:
        gin.parse_config("\nimport no_such_module_x")
    assert gin_internals.failed_import(failure.value) == ("no_such_module_x", 2), (
        CHANGED + "ParseContext.process_import"
    )
    with pytest.raises(ValueError, match="No configurable matching 'Nothing'") as other:
        gin.parse_config("Nothing.x = 5")
    assert gin_internals.failed_import(other.value) is None
    assert gin_config.read  # which registers the dataclasses
