"""Which failures of the storage may pass, by those of the system and of TensorFlow."""

import errno

import pytest
import tensorflow as tf

from switch_jax.errors import LostHostError, TransientError, UserError, storage_error


@pytest.mark.parametrize("name", ["EIO", "ESTALE", "ENOTCONN", "ETIMEDOUT", "EAGAIN"])
def test_the_system_s_failures_that_may_pass(name):
    error = storage_error("x cannot be written", OSError(getattr(errno, name), "words"))
    assert type(error) is TransientError and error.exit_code == 1
    assert str(error) == "x cannot be written; this may pass: start again"


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EACCES", "EROFS", "ENOENT", "EFBIG"])
def test_the_system_s_failures_that_stay(name):
    # The text of one does not count where its number is known.
    error = storage_error("x cannot be written", OSError(getattr(errno, name), "Input/output er"))
    assert type(error) is UserError and error.exit_code == 2
    assert str(error) == "x cannot be written"


@pytest.mark.parametrize(
    ("name", "transient"),
    [
        ("UnavailableError", True),
        ("DeadlineExceededError", True),
        ("AbortedError", True),
        ("CancelledError", True),
        ("InternalError", True),
        ("ResourceExhaustedError", True),
        ("DataLossError", False),
        ("NotFoundError", False),
        ("InvalidArgumentError", False),
        ("PermissionDeniedError", False),
        ("FailedPreconditionError", False),
        ("UnknownError", False),
    ],
)
def test_tensorflow_s_failures(name, transient):
    error = storage_error("x", getattr(tf.errors, name)(None, None, "words"))
    assert isinstance(error, TransientError) == transient


def test_a_full_disk_is_no_exhausted_server():
    with pytest.raises(tf.errors.ResourceExhaustedError) as full:
        with tf.io.gfile.GFile("/dev/full", "w") as file:
            file.write("text")
    assert type(storage_error("x", full.value)) is UserError


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (ValueError("ABORTED: Error writing x [OS error 5: EIO Input/output error]"), True),
        (RuntimeError("/data/x: Transport endpoint is not connected"), True),
        (OSError("Stale file handle"), True),  # without a number
        (ValueError("Error writing x [OS error 28: ENOSPC No space left on device]"), False),
        (ValueError("no such array"), False),
    ],
)
def test_the_system_s_words_in_errors_of_other_kinds(error, transient):
    assert isinstance(storage_error("x", error), TransientError) == transient


def test_lost_hosts_may_come_back():
    assert issubclass(LostHostError, TransientError) and LostHostError("x").exit_code == 1


def test_a_message_is_one_line_whatever_the_names_in_it_hold():
    error = UserError("no file a\nb\r\u2028\x1b[2J\udcff; \u00fc, \u6587 and C:\\x stay")
    assert str(error) == (r"no file a\nb\r\u2028\x1b[2J\udcff; " + "\u00fc, \u6587 and C:\\x stay")
    assert str(TransientError(f"{error}!")) == f"{error}!"
