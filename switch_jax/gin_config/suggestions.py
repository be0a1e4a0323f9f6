"""The ends of messages about unknown names: what may have been meant."""

import difflib
from collections.abc import Sequence

from switch_jax.gin_config import other_frameworks


def macro_suggestion(name: str, macros: Sequence[str]) -> str:
    """The end of a message about an unknown macro: its name here, what to do instead of it, or as
    `suggestion`."""
    if name.upper() in macros:
        return f"; did you mean {name.upper()}?"
    if name.upper() in other_frameworks.MACROS:
        return f"; here it is {other_frameworks.MACROS[name.upper()]}"
    if name.upper() in other_frameworks.ABSENT:
        instead = other_frameworks.ABSENT[name.upper()]
        return f"; there is no such thing here: {instead} (docs/coming_from.md)"
    return suggestion(name, macros)


def suggestion(name: str, choices: Sequence[str]) -> str:
    """The end of a message about an unknown name: similar names, or all choices."""
    similar = difflib.get_close_matches(name, list(choices), n=3, cutoff=0.5)
    if similar:
        return f"; did you mean {' or '.join(similar)}?"
    return f"; known are {', '.join(choices)}"
