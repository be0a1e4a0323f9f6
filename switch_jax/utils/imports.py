"""Imports a user's modules, which register tasks; what they raise becomes a one-line UserError."""

import importlib
import os
import re
import sys
import sysconfig
import traceback
from pathlib import Path

from switch_jax.utils.errors import UserError, storage_error

# Code in these places is not the user's.
_NOT_USER_CODE = (sysconfig.get_path("stdlib"), str(Path(__file__).parents[1]), "<")
_INSTALLED = re.compile(r"[/\\](site|dist)-packages[/\\]")


def add_current_directory_to_path() -> None:
    """Makes modules of the current directory importable; UserError where it has been removed."""
    try:
        directory = os.getcwd()
    except FileNotFoundError as error:
        raise UserError("the current directory has been removed: go to another one") from error
    if directory not in sys.path:
        sys.path.insert(0, directory)


def import_module(name: str) -> None:
    """Imports a module from the current directory or a package; UserError where that fails."""
    add_current_directory_to_path()
    if "" in name.split("."):
        raise UserError(f"cannot import {name!r}: write the name of a module, for example my_tasks")
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise import_failure(name, error) from error


def import_failure(name: str, error: BaseException) -> UserError:
    """Makes the error for a module that could not be imported: the line that failed, and why."""
    location = _location(error)
    reason = error.msg if isinstance(error, SyntaxError) else str(error).strip().split("\n")[0]
    if isinstance(error, ModuleNotFoundError) and not location:
        return UserError(
            f"cannot import {name!r} ({reason}): give a module that is in {os.getcwd()} or is "
            "installed, without .py"
        )
    return storage_error(
        f"cannot import {name!r}: {type(error).__name__}{location}: {reason or 'no message'}", error
    )


def _location(error: BaseException) -> str:
    """Returns ' in FILE, line N' of the user's code, or '' if none of it ran."""
    if isinstance(error, SyntaxError) and os.path.exists(error.filename or ""):
        return f" in {error.filename}" + (f", line {error.lineno}" if error.lineno else "")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not (frame.filename.startswith(_NOT_USER_CODE) or _INSTALLED.search(frame.filename)):
            return f" in {frame.filename}, line {frame.lineno}"
    return ""
