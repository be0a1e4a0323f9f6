"""Reads a checkpoint's metadata, its notes and its arrays; `integrity.try_to_read` finds damage."""

import contextlib
import json
import sys
from typing import Any

from etils import epath
from orbax.checkpoint import v1 as ocp

from switch_jax.checkpointing import orbax_patches
from switch_jax.checkpointing.integrity import (
    Shapes,
    add_checksum,
    shapes_of,
    try_to_read,
    verify_checksum,
)
from switch_jax.checkpointing.preservation import Metric
from switch_jax.runtime.multihost import is_first
from switch_jax.storage import atomic_write, read_bytes
from switch_jax.utils.json_text import parse_json
from switch_jax.utils.terminal import say

ARRAYS = "state"  # the folder in a checkpoint where Orbax writes the arrays

# The files that Orbax writes into a checkpoint.
_CHECKPOINT_METADATA = "_CHECKPOINT_METADATA"
_JSON_FILES = (_CHECKPOINT_METADATA, f"{ARRAYS}/_METADATA", f"{ARRAYS}/_sharding")


def describe(checkpoint: epath.Path) -> Any:
    """Reads Orbax's metadata of all arrays, nested; raises any exception."""
    for name in _JSON_FILES:  # Orbax's own messages do not name the file
        with contextlib.suppress(FileNotFoundError):  # Orbax says so, if it needs the file
            _read_json(checkpoint, name)
    arrays = orbax_patches.array_descriptions(checkpoint / ARRAYS)
    if not shapes_of(arrays):
        raise ValueError("its description cannot be read")
    return arrays


def shapes_and_notes(checkpoint: epath.Path) -> tuple[Shapes, dict[str, Any]]:
    """Reads the shapes of the arrays by path, and the notes that `Checkpoints.save` was given."""
    return shapes_of(describe(checkpoint)), _record(checkpoint)["notes"]


def saved_metric(checkpoint: epath.Path) -> Metric:
    """Reads the metric by which the best checkpoints are chosen."""
    record = _record(checkpoint)
    return Metric(record["value"], record["value_of"])


def _record(checkpoint: epath.Path) -> dict[str, Any]:
    """Reads what `Checkpoints.save` has written beside the arrays."""
    orbax_patches.check_metadata(checkpoint)
    metadata = _read_json(checkpoint, _CHECKPOINT_METADATA)
    return verify_checksum(metadata.get("custom_metadata"))


def _read_json(checkpoint: epath.Path, name: str) -> Any:
    content = read_bytes(checkpoint / name)
    try:
        return parse_json(content)
    except ValueError:
        raise ValueError(f"{name} is not JSON") from None


def load_arrays(checkpoint: epath.Path, abstract: Any) -> Any:
    """Reads the arrays of a checkpoint that are in `abstract`, and not None there."""
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with context:
        return ocp.load(checkpoint, abstract, checkpointable_name=ARRAYS)


def amend_notes(file: epath.Path, notes: dict[str, Any]) -> None:
    """Writes JSON notes that replace those saved with a checkpoint, all of them or nothing.

    A run that goes back to a checkpoint goes on with other data: its position in the data changes,
    not its arrays. `file` is MODEL_DIR/amended/STEP.json.
    """
    file.parent.mkdir(exist_ok=True)
    atomic_write(file, json.dumps(add_checksum(notes)))


def newest_notes(
    file: epath.Path, step: int, saved: dict[str, Any], say_damage: bool = True
) -> dict[str, Any]:
    """Returns the notes that `amend_notes` has written, or `saved` if they are absent or damaged.

    All processes call this together. With `say_damage` a line says that the file is damaged.
    """

    def read() -> dict[str, Any]:
        try:
            text = read_bytes(file)
        except FileNotFoundError:
            return saved
        return verify_checksum(parse_json(text))

    notes, damage = try_to_read(read)
    if damage is not None and say_damage and is_first():
        say(
            f"{file} is damaged ({damage}): the checkpoint of step {step} is used with the "
            "notes saved in it, so batches that a rollback skipped are read again",
            sys.stdout,
        )
    return notes if damage is None else saved
