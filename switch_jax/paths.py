"""Where the packaged configs are, and writing files that are whole or not there."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent

# In a wheel the configs are package data (switch_jax/gin); in a checkout they are beside it.
GIN_DIR = _PACKAGE / "gin" if (_PACKAGE / "gin").is_dir() else _PACKAGE.parent / "gin"


def write_whole(file: Path, text: str) -> None:
    """Writes a file whole, or not at all: a process that is killed leaves the old one.

    Raises:
      OSError: it cannot be written.
    """
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    with unfinished.open("w", encoding="utf-8") as new:
        new.write(text)
        new.flush()
        os.fsync(new.fileno())
    unfinished.replace(file)
