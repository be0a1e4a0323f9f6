"""Of a storage that has failed one line is printed, however much of it is closed afterwards."""

import contextlib
import errno

import pytest

from switch_jax.checkpointing.integrity import storage_errors_explained
from switch_jax.runtime.multihost import run_on_all
from switch_jax.storage import LostLeaseError
from switch_jax.trainer.instruments import closed_by
from switch_jax.utils.errors import TransientError, UserError


def _fail_and_close(fail):
    """Fails as a run does whose instruments and checkpoints fail as well when they are closed."""
    with contextlib.ExitStack() as closing:
        closing.push(closed_by(fail))
        closing.push(closed_by(fail))
        fail()


def test_a_lease_that_is_lost_is_told_once(capsys):
    def write():
        raise LostLeaseError("gs://bucket/run: another job has taken it over")

    with pytest.raises(TransientError, match="has taken it over"):
        _fail_and_close(lambda: run_on_all(write))
    assert capsys.readouterr().err == ""


def _wait_for_save(error):
    """The error of a save is raised each time that somebody waits for it."""
    with storage_errors_explained("checkpoints cannot be written"):
        raise error


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device"),  # TensorStore's
]


@pytest.mark.parametrize("full", FULL)
def test_a_disk_that_is_full_is_told_once(full, capsys):
    with pytest.raises(UserError) as error:
        _fail_and_close(lambda: run_on_all(lambda: _wait_for_save(full)))
    assert str(error.value) == f"checkpoints cannot be written: {full}"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("full", FULL)
def test_what_an_error_has_caused_is_not_its_cause(full):
    with pytest.raises(UserError) as again:
        try:
            _wait_for_save(full)
        except UserError:
            _wait_for_save(full)
    assert str(again.value) == f"checkpoints cannot be written: {full}"
