"""The end of a message about an unknown name of a macro, a field or a gin file."""

from collections.abc import Sequence

from switch_jax.utils.errors import did_you_mean


def suggestion(name: str, choices: Sequence[str]) -> str:
    """The choices that are similar, as "; did you mean a or b?"; "" if there are none."""
    similar = did_you_mean(name, choices)
    return f"; {similar.strip()}" if similar else ""
