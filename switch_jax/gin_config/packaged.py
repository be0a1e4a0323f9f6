"""The gin files that come with switch_jax: their names, and what is in them.

A file is read once it is asked for. A search through all of them is for messages, for completion,
and for macros that a file sets and nothing uses.
"""

import functools
import re

from switch_jax.paths import GIN_DIR


@functools.cache
def packaged_files() -> tuple[str, ...]:
    """Their names, as 'models/t5_base.gin', sorted."""
    return tuple(sorted(str(path.relative_to(GIN_DIR)) for path in GIN_DIR.rglob("*.gin")))


def is_packaged(file: str) -> bool:
    """Whether one has this name."""
    return file in packaged_files()


def packaged_macros() -> set[str]:
    """Names of the macros that they refer to."""
    return {name for file in packaged_files() for name in re.findall(r"%(\w+)", _text(file))}


def packaged_including(name: str) -> list[str]:
    """Names of those with a line that includes this one."""
    return _with_line(rf"^include '{re.escape(name)}'")


def packaged_setting(macro: str) -> list[str]:
    """Names of those with a line that sets this macro."""
    return _with_line(rf"^{re.escape(macro)}\s*=")


def _with_line(pattern: str) -> list[str]:
    """Names of those in which the pattern is found; ^ is the beginning of a line."""
    line = re.compile(pattern, re.MULTILINE)
    return [file for file in packaged_files() if line.search(_text(file))]


@functools.cache
def _text(file: str) -> str:
    return (GIN_DIR / file).read_text()
