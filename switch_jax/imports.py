"""Modules of the user's own, which register tasks: found, imported, and what is said if they fail.

A module runs as it is imported. What it raises is the user's to mend, and is told in one line.
"""

import importlib
import os
import re
import sys
import sysconfig
import traceback
from pathlib import Path

from switch_jax.errors import UserError, storage_error

# Where no code of the user's own lies.
_STANDARD = (sysconfig.get_path("stdlib"), str(Path(__file__).parent), "<")
_INSTALLED = re.compile(r"[/\\](site|dist)-packages[/\\]")


def look_in_current_directory() -> None:
    """Modules of the current directory can be imported from here on.

    Raises:
      UserError: the directory has been removed.
    """
    try:
        directory = os.getcwd()
    except FileNotFoundError as error:
        raise UserError("the current directory has been removed: go to another one") from error
    if directory not in sys.path:
        sys.path.insert(0, directory)


def import_module(name: str) -> None:
    """Imports a module from the current directory or an installed package.

    Raises:
      UserError: there is no such module, or it fails.
    """
    look_in_current_directory()
    if "" in name.split("."):
        raise UserError(f"cannot import {name!r}: give the name of a module, as my_tasks")
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise failure(name, error) from error


def failure(name: str, error: BaseException) -> UserError:
    """What to say of a module that could not be imported: the line that failed, and why.

    Args:
      name: of the module.
      error: with the traceback of the import.
    """
    place = _place(error)
    reason = error.msg if isinstance(error, SyntaxError) else str(error).strip().split("\n")[0]
    if isinstance(error, ModuleNotFoundError) and not place:
        return UserError(
            f"cannot import {name!r} ({reason}): give a module that lies in {os.getcwd()} or is "
            "installed, without .py"
        )
    if isinstance(error, SystemExit):
        return UserError(
            f"cannot import {name!r}: it ends the program{place}; what it shall run as a program "
            'goes under `if __name__ == "__main__":`'
        )
    return storage_error(
        f"cannot import {name!r}: {type(error).__name__}{place}: {reason or 'no message'}", error
    )


def _place(error: BaseException) -> str:
    """' in FILE, line N', of the user's own code if there is any; '' where none ran."""
    if isinstance(error, SyntaxError) and os.path.exists(error.filename or ""):
        return f" in {error.filename}" + (f", line {error.lineno}" if error.lineno else "")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not (frame.filename.startswith(_STANDARD) or _INSTALLED.search(frame.filename)):
            return f" in {frame.filename}, line {frame.lineno}"
    return ""
