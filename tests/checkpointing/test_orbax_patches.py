"""The parts of Orbax that are not public: a release that moves one is named here first."""

import importlib
import importlib.metadata
import inspect
import logging
from pathlib import Path

import jax.numpy as jnp
import pytest

from switch_jax.checkpointing import Checkpoints, orbax_patches
from switch_jax.errors import UserError
from switch_jax.run_folder import RunFolder

# Of orbax-checkpoint 0.12.8: module, name in it, and the arguments that it is called with.
NAMES = [
    ("_src.asyncio_utils", "run_sync", ["coro"]),
    ("_src.futures.future", "set_signals", ["send_signals", "operation_id"]),
    ("_src.futures.synchronization", "HandlerAwaitableSignal", None),
    ("_src.futures.synchronization", "OperationIdGenerator.get_current_operation_id", []),
    ("_src.path.step", "Metadata.commit_timestamp", None),
    ("_src.serialization.tensorstore_utils", "_build_zarr3_metadata", None),
]


@pytest.mark.parametrize(("module", "name", "arguments"), NAMES)
def test_names_are_where_they_were(module, name, arguments):
    release = importlib.metadata.version("orbax-checkpoint")
    try:
        found = importlib.import_module(f"orbax.checkpoint.{module}")
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"orbax-checkpoint {release} has moved {module}.{name}: {error}")
    if arguments is not None:
        taken = list(inspect.signature(found).parameters)
        assert taken[: len(arguments)] == arguments, f"orbax-checkpoint {release}, {module}.{name}"


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
