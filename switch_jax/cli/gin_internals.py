"""All that switch_jax takes from inside gin, which another release may move: nothing else does.

tests/cli/test_gin_internals.py says what has moved, and in which release.
"""

import contextlib
import tokenize
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TextIO

from gin import config as gin
from gin import config_parser

MACRO = "gin.macro"  # the configurable whose parameter `value` a macro is, in the macro's scope


class Import(NamedTuple):
    """An import statement of a gin file: the module's name, and the line that it stands in."""

    module: str
    line: int


def read_files_with(
    reader: Callable[[str], contextlib.AbstractContextManager[TextIO]],
    exists: Callable[[str], bool],
    folders: Sequence[str],
) -> None:
    """Makes gin read files in one way alone, and look for them in these folders alone.

    Its own other reader takes a folder `runs` for a Python package, and trips.

    Args:
      reader: opens a path.
      exists: whether the path is there to be read.
      folders: the first that has a file wins.
    """
    gin._FILE_READERS[:] = [(reader, exists)]
    gin._LOCATION_PREFIXES[:] = folders


def bindings() -> dict[str, Any]:
    """What has been set, by name: 'NAME' of a macro, 'Config.field' of all else.

    References in values are as they were written.
    """
    found = {}
    for (scope, selector), values in gin._CONFIG.items():
        for parameter, value in values.items():
            name = scope if selector == MACRO else f"{selector.rpartition('.')[2]}.{parameter}"
            found[name if selector == MACRO or not scope else f"{scope}/{name}"] = value
    return found


def macros() -> dict[str, Any]:
    """The macros that have been set, and their values as they were written."""
    return {
        scope: values["value"]
        for (scope, selector), values in gin._CONFIG.items()
        if selector == MACRO
    }


def value_of(text: str) -> Any:
    """The gin value that a text is, whole; or the text, where it is none.

    Raises:
      tokenize.TokenError: a bracket is not closed.
    """
    try:
        parser = config_parser.ConfigParser(text.strip(), gin.ParserDelegate())
        value = parser.parse_value()
        if parser.current_token.type == tokenize.NEWLINE:
            parser.advance_one_line()
    except tokenize.TokenError:
        if text.strip().startswith(("(", "[", "{")):
            raise
        return text
    except (ValueError, SyntaxError):
        return text
    return value if parser.current_token.type == tokenize.ENDMARKER else text


def references(value: Any) -> list[str]:
    """Names of the macros that a value refers to, however deep."""
    if isinstance(value, Mapping):
        return [name for item in value.values() for name in references(item)]
    if isinstance(value, list | tuple | set):
        return [name for item in value for name in references(item)]
    if isinstance(value, gin.ConfigurableReference) and value.selector == MACRO:
        return [value.scoped_selector.rpartition("/")[0]]
    return []


def is_required(value: Any) -> bool:
    """Whether the value is %gin.REQUIRED: another one has to be set."""
    return isinstance(value, gin.ConfigurableReference) and repr(value) == "%gin.REQUIRED"


def is_function(value: Any) -> bool:
    """Whether the value is a function or a class itself, @NAME, and not what it returns."""
    return isinstance(value, gin.ConfigurableReference) and not value.evaluate


def failed_import(error: BaseException) -> Import | None:
    """The import statement that an error came out of; None: it came out of none."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is gin.ParseContext.process_import.__code__:
            statement = trace.tb_frame.f_locals["statement"]
            return Import(statement.module, statement.location.line_num)
        trace = trace.tb_next
    return None
