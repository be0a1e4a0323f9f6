"""Modules of the user's own, those that fail too."""

import sys

import pytest

from switch_jax.utils import imports
from switch_jax.utils.errors import TransientError, UserError


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module into the current directory, which is forgotten after the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(text, name="own_tasks"):
        (tmp_path / f"{name}.py").write_text(text)

    yield write
    for name in ("own_tasks", "own_helper"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = (2\n", r"own_tasks': SyntaxError in .*own_tasks.py, line 2: '\(' was never"),
        ("{}['k']\n", r"own_tasks': KeyError in .*own_tasks.py, line 1: 'k'"),
        ("import absent_x\n", r"ModuleNotFoundError in .*own_tasks.py, line 1: .*'absent_x'"),
        ("import sys\nsys.exit(0)\n", r"SystemExit in .*own_tasks.py, line 2: 0"),
        ("import json\n\njson.loads('{')\n", r"JSONDecodeError in .*own_tasks.py, line 3: Expect"),
        ("raise ValueError\n", r"ValueError in .*own_tasks.py, line 1: no message"),
        ("import own_helper\n", r"SyntaxError in .*own_helper.py, line 1: "),
    ],
)
def test_a_module_that_fails_is_named_with_the_line(text, message, module):
    module("x = = 1\n", "own_helper")
    module(text)
    with pytest.raises(UserError, match=f"cannot import 'own_tasks'.*{message}|{message}") as error:
        imports.import_module("own_tasks")
    assert error.value.exit_code == 2
    assert len(str(error.value).splitlines()) == 1


def test_a_storage_fault_in_a_module_may_pass(module):
    module("raise OSError(5, 'Input/output error')\n")
    with pytest.raises(TransientError, match="line 1: .*Input/output error; this may pass"):
        imports.import_module("own_tasks")


@pytest.mark.parametrize("name", ["", "..", "x.", "no_such_tasks", "a/b.py"])
def test_names_of_no_module(name, module):
    with pytest.raises(UserError, match="cannot import"):
        imports.import_module(name)
