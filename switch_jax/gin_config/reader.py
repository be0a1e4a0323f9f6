"""Reading of gin files, with one-line error messages."""

import contextlib
import dataclasses
import io
import os
import re
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from gin import config as gin
from switch_jax.gin_config import gin_internals
from switch_jax.gin_config.packaged import packaged_files
from switch_jax.storage import in_bucket, is_file, local_copy
from switch_jax.utils import imports
from switch_jax.utils.errors import TransientError, UserError, did_you_mean, not_utf8, storage_error
from switch_jax.utils.paths import GIN_DIR

_IMPORT = re.compile(r"^\s*(?:import|from)\s", re.MULTILINE)


class Reader:
    """Reads gin files that set the fields of some dataclasses.

    Attributes:
      origins: for each macro the files and flags that have set it, in their order; for a field the
        flags, and the files that are not packaged.
      files: that were read, packaged ones as 'models/t5_base.gin'; each comes before those that it
        includes.
    """

    def __init__(self, configs: Mapping[str, Any], search_paths: Sequence[str]) -> None:
        """Files are searched in the current directory, `search_paths`, and the packaged files."""
        self._fields = {
            name: [field.name for field in dataclasses.fields(config)]
            for name, config in configs.items()
        }
        self._folders = [".", *search_paths, str(GIN_DIR)]
        self._open_files: list[str] = []  # each includes the next
        self._bindings: dict[str, Any] = {}  # of the file that is read and those that it includes
        self.origins: dict[str, list[str]] = {}
        self.files: list[str] = []
        gin_internals.read_files_with(self._open, is_file, ["", *self._folders])

    def read(self, file: str) -> Mapping[str, Any]:
        """Sets a file's values, and returns them by name; UserError where it is no valid gin."""
        if not any(is_file(path) for path in self._paths(file)):
            raise UserError(self._absent(file))
        self._open_files.clear()
        self._bindings = {}
        with one_line_errors(), gin_internals.setting_recorded(self._record):
            gin.parse_config_file(file)
        return self._bindings

    def _absent(self, file: str) -> str:
        """Returns the message that a file is missing, with similar names."""
        name = file if file.isprintable() else repr(file)
        similar = did_you_mean(file, [*packaged_files(), *self._files_beside(file)])
        return f"no gin file {name} in {', '.join(self._folders)}{similar}"

    def _paths(self, file: str) -> list[str]:
        """Returns the paths where a file is looked for; a URL is the only path of its file."""
        return [os.path.join("" if in_bucket(file) else folder, file) for folder in self._folders]

    def _files_beside(self, file: str) -> list[str]:
        """The user's gin files in the folder of a file that is not there, as they are written."""
        parent = Path(file).parent
        beside = (path for root in self._folders for path in (Path(root) / parent).glob("*.gin"))
        return sorted({str(parent / path.name) for path in beside} - set(packaged_files()))

    def set(self, name: str, text: str, file: str | None = None) -> None:
        """Sets 'MACRO' or 'Config.field' to a value as in a gin file; other text is a string.

        It is from the file, or from a flag if that is None. UserError where the name is unknown, or
        a bracket in the value is not closed.
        """
        setter = file or f"--gin.{name}"
        try:
            value = gin_internals.value_of(text)
            key = name if "." in name else (name, gin_internals.MACRO, "value")
            gin.bind_parameter(key, value)
            if "." not in name or file is None:
                self.origins.setdefault(name, []).append(setter)
        except tokenize.TokenError:
            raise UserError(f"{setter}={text}: a bracket is not closed") from None
        except Exception as error:
            raise self._user_error(setter, error) from error

    def _record(self, name: str, value: Any) -> None:
        self._bindings[name] = value
        file = _name(self._open_files[-1])
        is_noted = "." not in name or file not in packaged_files()
        if is_noted and not gin_internals.is_required(value):
            self.origins.setdefault(name, []).append(file)

    @contextlib.contextmanager
    def _open(self, path: str) -> Iterator[TextIO]:
        """Opens a file; any error while it is read becomes a UserError with its location."""
        if path in self._open_files:
            cycle = " -> ".join([*self._open_files[self._open_files.index(path) :], path])
            raise UserError(f"{cycle}: the files include each other; remove one include")
        self._open_files.append(path)
        self.files.append(_name(path))
        try:
            with open(local_copy(path), encoding="utf-8") as file:
                text = io.StringIO(file.read())
            if _IMPORT.search(text.getvalue()):  # the user's tasks will import TensorFlow
                from switch_jax.utils import tensorflow_setup  # noqa: F401
            text.name = path  # type: ignore[attr-defined]  # gin names it in messages
            yield text
        except UserError:  # of a file that it includes
            raise
        except (Exception, SystemExit) as error:
            raise self._user_error(path, error) from error
        self._open_files.pop()

    def _user_error(self, path: str, error: BaseException) -> UserError:
        """The UserError for an exception that was raised while the file was read."""
        if failed := gin_internals.failed_import(error):
            module, number = failed
            failure = imports.import_failure(module, error)
            return type(failure)(f"{path}, line {number}: {failure}")
        if isinstance(error, tokenize.TokenError):
            return UserError(f"{path}: a bracket or a quote is not closed")
        if isinstance(error, OSError) and error.errno is not None:
            return storage_error(f"{path} cannot be read: {error.strerror}", error)
        if isinstance(error, UnicodeDecodeError):
            return UserError(f"{path}: {not_utf8(error.start)}")
        message = first_line(error)
        if isinstance(error, SyntaxError):
            message, text = error.msg.splitlines()[0].rstrip("."), (error.text or "").strip()
            return UserError(f"{path}, line {error.lineno}: {message}: {text}")
        line = re.search(r'In file ".*", line (\d+)', str(error))
        location = f"{path}, line {line[1]}" if line else path
        if absent := re.match(r"Unable to open file: (.*)\. Searched config paths: ", message):
            return UserError(f"{location}: {self._absent(absent[1])}")
        return UserError(f"{location}: {message.rstrip('.')}{self._similar(message)}")

    def _similar(self, message: str) -> str:
        """The end of an error message of gin about a config or a field that is not there."""
        if unknown := re.search(r"No configurable matching '([^.']+)", message):
            return did_you_mean(unknown[1], list(self._fields))
        found = re.search(r"'(?:.*\.)?(\w+)' doesn't have a parameter named '(\w+)'", message)
        return did_you_mean(found[2], self._fields.get(found[1], [])) if found else ""


def _name(path: str) -> str:
    """Returns the name of an open file in messages; a packaged one is 'models/t5_base.gin'."""
    return path.removeprefix(f"{GIN_DIR}/").removeprefix("./")


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns any error in this context, of gin or a function it calls, into a one-line UserError."""
    try:
        yield
    except UserError as error:  # gin raises a subclass with a longer message
        is_transient = isinstance(error, TransientError)
        raise (TransientError if is_transient else UserError)(first_line(error)) from error
    except RecursionError:
        raise UserError("macros refer to each other in a circle") from None
    except Exception as error:
        raise UserError(f"gin: {type(error).__name__}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message; gin adds locations below it."""
    return str(error).strip().split("\n")[0]
