"""Defines `UserError`, the exception for a user's mistake, subclasses, and parts of messages."""

import difflib
import errno
import os
import re
from collections.abc import Sequence

from switch_jax import exit_codes


class UserError(Exception):
    """A problem that the user can fix: a name, a size, a path.

        try:
            model = switch_jax.load("runs/tuned")
        except switch_jax.UserError as error:
            print(error)  # there is no folder runs/tuned to take a model from: ...

    The message is one line: what is wrong, with the numbers, and what to write instead. The command
    line prints it without a stack trace and exits with `exit_code`. Line breaks and other
    unprintable characters in the message are escaped, as in 'a\\nb'.
    """

    exit_code = exit_codes.MISTAKE
    of_storage = False  # whether a disk or a bucket failed, or another job has taken it over

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))


class FieldError(UserError):
    """An invalid value of a config's `field`; `problem` is the message without the field's name."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field, self.problem = field, problem


class TransientError(UserError):
    """A failure that may not happen again: a launcher restarts all processes."""

    exit_code = exit_codes.FAILED


class LostHostError(TransientError):
    """Other processes did not answer in time."""


_TRANSIENT = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EAGAIN)
_FULL = (errno.ENOSPC, errno.EDQUOT)  # TensorFlow reports them as RESOURCE_EXHAUSTED
# TensorFlow's `error_code` takes the codes of google.rpc: CANCELLED, DEADLINE_EXCEEDED,
# RESOURCE_EXHAUSTED, ABORTED, INTERNAL, UNAVAILABLE.
_TRANSIENT_CODES = (1, 4, 8, 10, 13, 14)
_GAVE_UP = "retry attempts failed"  # TensorStore, of a bucket that refused each of them


def is_transient(error: BaseException) -> bool:
    """Says whether a failed read or write may succeed later: the network or the storage failed.

    The error is an OSError, or one of TensorFlow, TensorStore or others that quotes the operating
    system's message.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _TRANSIENT
    if _quotes_any(_FULL, error):
        return False
    if _quotes_any(_TRANSIENT, error) or _GAVE_UP in str(error):
        return True
    return getattr(error, "error_code", 0) in _TRANSIENT_CODES


def _quotes_any(codes: Sequence[int], error: BaseException) -> bool:
    """Says whether the error's text has the operating system's message for one of the codes."""
    return any(os.strerror(code) in str(error) for code in codes)


def storage_error(message: str, cause: BaseException) -> UserError:
    """Makes an error with this message: a TransientError if its cause is transient."""
    error = passing_error(message) if is_transient(cause) else UserError(message)
    error.of_storage = True
    return error


def passing_error(message: str) -> TransientError:
    """Makes the error of a storage that may do the same later; it ends with what to do."""
    error = TransientError(f"{message}; this may pass: start again")
    error.of_storage = True
    return error


def not_utf8(position: int) -> str:
    """Says what is wrong with a file whose bytes at this position are not UTF-8."""
    return f"a binary file, or text in another encoding: not UTF-8 at byte {position}"


def did_you_mean(name: str, choices: Sequence[str]) -> str:
    """Names similar choices, in any case of letters: " (did you mean a or b?)", or "" for none."""
    by_small_letters = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(name.lower(), by_small_letters)
    similar = [by_small_letters[match] for match in found]
    return f" (did you mean {' or '.join(similar)}?)" if similar else ""


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises FieldError if the value of a config's field is not one of the choices."""
    if value not in choices:
        raise FieldError(name, f"= {value!r} is not known; write one of {', '.join(choices)}")


def check_pattern(name: str, pattern: str, template: str = "") -> None:
    """Raises FieldError if a field's regular expression, or its `re.sub` template, is invalid."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        problem = f"has {pattern!r}, which is no regular expression: {error}"
        raise FieldError(name, problem) from error
    try:
        compiled.sub(template, "")
    except (re.error, IndexError) as error:  # an unknown name of a group is an IndexError
        raise FieldError(
            name,
            f"has the name {template!r} for {pattern!r}, which has {compiled.groups} groups in "
            f"parentheses: {error}",
        ) from error
