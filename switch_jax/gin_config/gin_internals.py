"""All uses of gin's private names: if a release of gin breaks something, change it here."""

import contextlib
import copy
import tokenize
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from gin import config as gin
from gin import config_parser

MACRO = "gin.macro"  # gin stores a macro as parameter `value` of this, in a scope of its name
_BIND_PARAMETER = gin.bind_parameter  # which `setting_recorded` replaces


def read_files_with(
    reader: Callable[[str], contextlib.AbstractContextManager[TextIO]],
    exists: Callable[[str], bool],
    folders: Sequence[str],
) -> None:
    """Makes gin open all files with this reader, and search them in these folders, in their order.

    Gin's other default reader fails if there is a folder `runs`: it takes it for a Python package.
    """
    gin._FILE_READERS[:] = [(reader, exists)]
    gin._LOCATION_PREFIXES[:] = folders


@contextlib.contextmanager
def setting_recorded(record: Callable[[str, Any], None]) -> Iterator[None]:
    """Passes to `record` what each statement sets: the name, as in `bindings`, and the value."""
    bind = gin.bind_parameter

    def recording(key: Any, value: Any) -> None:
        _BIND_PARAMETER(key, value)
        if isinstance(key, tuple):  # (scope, selector, parameter)
            record(_name(*key), value)

    gin.bind_parameter = recording
    try:
        yield
    finally:
        gin.bind_parameter = bind


@contextlib.contextmanager
def state_restored() -> Iterator[None]:
    """Lets any config be parsed, even while a file is read; then gin is as it was before."""
    kept: list[Any] = [gin._CONFIG, gin._SINGLETONS, gin._OPERATIVE_CONFIG, gin._IMPORTS]
    kept += [gin._FILE_READERS, gin._LOCATION_PREFIXES]
    copies = [copy.copy(container) for container in kept]
    is_locked, bind = gin.config_is_locked(), gin.bind_parameter
    gin.bind_parameter = _BIND_PARAMETER  # what is set within is not recorded as the file's
    try:
        yield
    finally:
        gin.bind_parameter = bind
        for container, content in zip(kept, copies, strict=True):
            container.clear()
            (container.extend if isinstance(container, list) else container.update)(content)
        gin._set_config_is_locked(is_locked)


def bindings() -> dict[str, Any]:
    """Returns all values set, by 'MACRO' or 'Config.field'; references are not resolved."""
    return {
        _name(scope, selector, parameter): value
        for (scope, selector), values in gin._CONFIG.items()
        for parameter, value in values.items()
    }


def _name(scope: str, selector: str, parameter: str) -> str:
    if selector == MACRO:
        return scope
    name = f"{selector.rpartition('.')[2]}.{parameter}"
    return f"{scope}/{name}" if scope else name


def macros() -> dict[str, Any]:
    """The macros that have been set; references in the values are not resolved."""
    config = gin._CONFIG.items()
    return {scope: values["value"] for (scope, selector), values in config if selector == MACRO}


def value_of(text: str) -> Any:
    """A text as a gin value, or itself if it is none; TokenError where a bracket is not closed."""
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
    """Names of the macros that a value refers to, also inside containers."""
    if isinstance(value, Mapping):
        return [name for item in value.values() for name in references(item)]
    if isinstance(value, list | tuple | set):
        return [name for item in value for name in references(item)]
    if isinstance(value, gin.ConfigurableReference) and value.selector == MACRO:
        return [value.scoped_selector.rpartition("/")[0]]
    return []


def used_macros() -> set[str]:
    """Names of the macros that some value refers to."""
    return set(references(bindings()))


def imported_modules() -> list[str]:
    return [statement.module for statement in gin._IMPORTS]


def is_required(value: Any) -> bool:
    """Whether the value is %gin.REQUIRED, which has to be replaced."""
    return isinstance(value, gin.ConfigurableReference) and repr(value) == "%gin.REQUIRED"


def failed_import(error: BaseException) -> tuple[str, int] | None:
    """The module and the line number of the import statement that raised the error, or None."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is gin.ParseContext.process_import.__code__:
            statement = trace.tb_frame.f_locals["statement"]
            return statement.module, statement.location.line_num
        trace = trace.tb_next
    return None
