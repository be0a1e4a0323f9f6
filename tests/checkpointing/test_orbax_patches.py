"""The parts of Orbax that are not public, and its logs."""

import logging
from pathlib import Path

import jax.numpy as jnp
import pytest

from switch_jax.checkpointing import Checkpoints, orbax_patches
from switch_jax.errors import UserError
from switch_jax.run_folder import RunFolder


def test_they_are_used_in_one_module():
    package = orbax_patches.__file__.rpartition("/checkpointing/")[0]
    users = [
        str(path)
        for path in Path(package).rglob("*.py")
        if "orbax.checkpoint._src" in path.read_text()
    ]
    assert users == [orbax_patches.__file__]


def test_a_name_that_has_moved_does_not_hide_why_a_save_failed(tmp_path, monkeypatch):
    def save_async(*_, **__):
        raise OSError(28, "No space left on device")

    def moved(*_, **__):
        raise AttributeError("no such name")

    checkpoints = Checkpoints(RunFolder(tmp_path), 3)
    monkeypatch.setattr(checkpoints._checkpointer, "save_async", save_async)
    monkeypatch.setattr(orbax_patches.future, "set_signals", moved)
    with pytest.raises(UserError, match="cannot be written to .*: .*No space left on device; what"):
        checkpoints.save(1, {"x": jnp.arange(3.0)}, {}, None)


def test_logs_are_kept_out_of_a_block_and_no_longer(caplog):
    def warn(path):
        for name in ("absl", None):
            logger = logging.getLogger(name)
            logger.handle(logger.makeRecord(name, logging.WARNING, path, 1, "words", (), None))

    with orbax_patches.without_logs():
        warn("/x/orbax/checkpoint/y.py")
        assert caplog.records == []
        warn("/x/other.py")
        assert len(caplog.records) == 2
    warn("/x/orbax/checkpoint/y.py")
    assert len(caplog.records) == 4
