"""The gin files that come with switch_jax: their names, and the macros in them."""

import functools
import re

from switch_jax.utils.paths import GIN_DIR


@functools.cache
def packaged_files() -> tuple[str, ...]:
    """Returns the names of the packaged gin files, as 'models/t5_base.gin', sorted."""
    return tuple(sorted(str(path.relative_to(GIN_DIR)) for path in GIN_DIR.rglob("*.gin")))


def packaged_macros() -> set[str]:
    """Returns the names of the macros that the packaged files refer to."""
    texts = [(GIN_DIR / file).read_text() for file in packaged_files()]
    return {name for text in texts for name in re.findall(r"%(\w+)", text)}
