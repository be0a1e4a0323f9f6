"""The one exception that stands for a user's mistake, and what its messages share."""

import difflib
import errno
import os
from collections.abc import Sequence


class UserError(Exception):
    """Something the user can put right: a name, a size, a path.

    The message is one clear line that says what is wrong, with the numbers, and what to write
    instead. The command line prints it and exits with `exit_code`, without a stack trace. What a
    name in it holds of line breaks and hidden characters is escaped, as in 'a\\nb'.
    """

    exit_code = 2  # the same mistake at the next start: a launcher does not try again

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))


class FieldError(UserError):
    """A field of a config holds what makes no sense.

    Attributes:
      field: its name.
      problem: the rest of the message, for those who know the value under another name.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field, self.problem = field, problem


class TransientError(UserError):
    """Something that may be over at the next start: a launcher starts all processes again."""

    exit_code = 1


class LostHostError(TransientError):
    """Other processes were not there in time."""


_TRANSIENT = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EAGAIN)
_FULL = (errno.ENOSPC, errno.EDQUOT)  # RESOURCE_EXHAUSTED to TensorFlow
# TensorFlow's `error_code`s, those of google.rpc: CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED,
# ABORTED, INTERNAL, UNAVAILABLE.
_TRANSIENT_CODES = (1, 4, 8, 10, 13, 14)


def is_transient(error: BaseException) -> bool:
    """Whether a failure to read or write may pass: of the network or the storage behind it.

    Args:
      error: OSError, one of TensorFlow's, or any that has the system's words in its text.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _TRANSIENT
    if _says_one_of(_FULL, error):
        return False
    return _says_one_of(_TRANSIENT, error) or getattr(error, "error_code", 0) in _TRANSIENT_CODES


def _says_one_of(numbers: Sequence[int], error: BaseException) -> bool:
    return any(os.strerror(number) in str(error) for number in numbers)


def storage_error(message: str, cause: BaseException) -> UserError:
    """The error with this message: a TransientError where the cause may pass."""
    if is_transient(cause):
        return TransientError(f"{message}; this may pass: start again")
    return UserError(message)


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The names that are near, as "did you mean a or b? "; "" where none is."""
    near = difflib.get_close_matches(name, known)
    return f"did you mean {' or '.join(near)}? " if near else ""


def one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises FieldError where a config's value is none of the choices."""
    if value not in choices:
        raise FieldError(name, f"= {value!r} is not known; write one of {', '.join(choices)}")
