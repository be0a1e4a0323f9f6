"""The messages of the launcher."""

import contextlib
import sys
from collections.abc import Iterator


def log(text: str) -> None:
    """Prints a message on standard error, marked so that it differs from the output of the job."""
    print(f"switch_jax launch: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def explain_interrupt(name: str, end: str) -> Iterator[None]:
    """Explains after Ctrl-C what the job does now, and that the command `end` ends it."""
    try:
        yield
    except KeyboardInterrupt as stop:
        print(file=sys.stderr)
        phase = stop.args[0] if stop.args else f"goes on; `{end}` ends it"
        log(f"{name} {phase}; the same command follows it again")
        raise
