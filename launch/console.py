"""The launcher's own messages."""

import sys


def log(text: str) -> None:
    """Prints a message on standard error, marked so that it differs from the output of the job."""
    print(f"switch_jax launch: {text}", file=sys.stderr, flush=True)
