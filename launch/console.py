"""The launcher's own lines on standard error."""

import sys


def log(text: str) -> None:
    """Prints a line that the lines of processes and hosts cannot be mistaken for."""
    print(f"switch_jax launch: {text}", file=sys.stderr, flush=True)
