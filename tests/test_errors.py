"""Which failures of the storage may pass, by those of the system and of TensorFlow."""

import errno

import pytest
import tensorflow as tf

from switch_jax.errors import LostHostError, TransientError, UserError, storage_error

PASSING = ["EIO", "ESTALE", "ENOTCONN", "ETIMEDOUT", "EAGAIN"]
STAYING = ["ENOSPC", "EDQUOT", "EACCES", "EROFS", "ENOENT", "EFBIG"]


@pytest.mark.parametrize("name", PASSING + STAYING)
def test_the_system_s_failures(name):
    # The text of one that may pass does not count where its number is known.
    cause = OSError(getattr(errno, name), "Input/output error")
    error = storage_error("x cannot be written", cause)
    if name in PASSING:
        assert type(error) is TransientError and error.exit_code == 1
        assert str(error) == "x cannot be written; this may pass: start again"
    else:
        assert type(error) is UserError and error.exit_code == 2
        assert str(error) == "x cannot be written"


@pytest.mark.parametrize(
    ("names", "transient"),
    [
        ("Unavailable DeadlineExceeded Aborted Cancelled Internal ResourceExhausted", True),
        (
            "DataLoss NotFound InvalidArgument PermissionDenied FailedPrecondition Unknown",
            False,
        ),
    ],
)
def test_tensorflow_s_failures(names, transient):
    for name in names.split():
        error = storage_error("x", getattr(tf.errors, f"{name}Error")(None, None, "words"))
        assert isinstance(error, TransientError) == transient, name


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
