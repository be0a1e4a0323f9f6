"""The gin files that come with switch_jax: their names, and what is in them.

A search through all of them is for messages, and for macros that a file sets and nothing uses.
"""

import functools
import re

from switch_jax.utils.paths import GIN_DIR


@functools.cache
def packaged_files() -> tuple[str, ...]:
    """Their names, as 'models/t5_base.gin', sorted."""
    return tuple(sorted(str(path.relative_to(GIN_DIR)) for path in GIN_DIR.rglob("*.gin")))


def is_packaged(file: str) -> bool:
    """Whether one has this name."""
    return file in packaged_files()


def packaged_macros() -> set[str]:
    """Names of the macros that they refer to."""
    texts = [(GIN_DIR / file).read_text() for file in packaged_files()]
    return {name for text in texts for name in re.findall(r"%(\w+)", text)}
