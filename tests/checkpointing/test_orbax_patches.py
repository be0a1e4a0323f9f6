"""The parts of Orbax that are not public, and its logs."""

import logging
from pathlib import Path

from switch_jax.checkpointing import orbax_patches


def test_they_are_used_in_one_module():
    package = orbax_patches.__file__.rpartition("/checkpointing/")[0]
    users = [
        str(path)
        for path in Path(package).rglob("*.py")
        if "orbax.checkpoint._src" in path.read_text()
    ]
    assert users == [orbax_patches.__file__]


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
