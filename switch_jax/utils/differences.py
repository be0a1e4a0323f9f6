"""Lists what differs between two dicts: settings, shapes of arrays, what results depend on."""

from collections.abc import Collection, Mapping
from typing import Any

from switch_jax.utils.fields import short_repr

_MOST_LISTED = 4


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Lists values that differ: "NUM_EXPERTS 4 -> 8", "LEARNING_RATE_FACTORS absent -> None"."""
    absent = object()

    def text(values: Mapping[str, Any], name: str) -> str:
        return short_repr(values[name]) if name in values else "absent"

    return [
        f"{name} {text(before, name)} -> {text(after, name)}"
        for name in {**before, **after}
        if before.get(name, absent) != after.get(name, absent)
    ]


def listed(texts: Collection[str]) -> str:
    """Joins the first four texts, and says how many more there are: "a, b, c, d and 5 more"."""
    more = len(texts) - _MOST_LISTED
    return ", ".join(list(texts)[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
