"""The one exception that stands for a user's mistake, and what its messages share."""

import difflib
from collections.abc import Sequence


class UserError(Exception):
    """Something the user can put right: a name, a size, a path.

    The message is one clear line that says what is wrong, with the numbers, and what to write
    instead. The command line prints it and exits with `exit_code`, without a stack trace.
    """

    exit_code = 2  # the same mistake at the next start: a launcher does not try again


class LostHostError(UserError):
    """Other processes were not there in time: a launcher starts all of them again."""

    exit_code = 1


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """"did you mean a or b? ", with the names that are near; "" where none is."""
    near = difflib.get_close_matches(name, known)
    return f"did you mean {' or '.join(near)}? " if near else ""


def one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises UserError where a config's value is none of the choices."""
    if value not in choices:
        raise UserError(f"{name} = {value!r} is not known; write one of {', '.join(choices)}")
