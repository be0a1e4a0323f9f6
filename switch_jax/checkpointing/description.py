"""What a checkpoint says of itself, and its arrays; see `integrity.try_to_read` for damage."""

import json
import sys
from typing import Any

from etils import epath
from orbax.checkpoint import v1 as ocp

from switch_jax.checkpointing.integrity import (
    Shapes,
    add_checksum,
    shapes_of,
    try_to_read,
    verify_checksum,
)
from switch_jax.checkpointing.preservation import Metric
from switch_jax.runtime.processes import is_first
from switch_jax.storage import atomic_write, read_bytes
from switch_jax.utils.json_text import parse_json
from switch_jax.utils.terminal import say

ARRAYS = "state"  # the folder in a checkpoint where Orbax writes the arrays

# Orbax's, in a checkpoint.
_JSON_FILES = ("_CHECKPOINT_METADATA", f"{ARRAYS}/_METADATA", f"{ARRAYS}/_sharding")
_METADATA_FILES = (*_JSON_FILES, f"{ARRAYS}/manifest.ocdbt")


def describe(checkpoint: epath.Path) -> Any:
    """Orbax's description, whose `metadata` are of all arrays, nested; the notes may be damaged."""
    for name in _METADATA_FILES:  # Orbax takes a file that it cannot read for an empty one
        try:
            content = read_bytes(checkpoint / name)
        except FileNotFoundError:
            continue  # Orbax says so, if it needs the file
        if name in _JSON_FILES and not _is_json(content):
            raise ValueError(f"{name} is not JSON")
    description = ocp.metadata(checkpoint, ARRAYS)
    if not shapes_of(description.metadata):
        raise ValueError("its description cannot be read")
    return description


def shapes_and_notes(checkpoint: epath.Path) -> tuple[Shapes, dict[str, Any]]:
    """Shapes of the arrays by path, and the notes that were passed to `Checkpoints.save`."""
    description = describe(checkpoint)
    return shapes_of(description.metadata), verify_checksum(description.custom_metadata)["notes"]


def metric_of(checkpoint: epath.Path) -> Metric:
    """What the best are chosen by."""
    record = verify_checksum(ocp.metadata(checkpoint, ARRAYS).custom_metadata)
    return Metric(record["value"], record["value_of"])


def load_arrays(checkpoint: epath.Path, abstract: Any) -> Any:
    """Reads arrays of a checkpoint; what is not in `abstract`, or None there, is not read."""
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with context:
        return ocp.load(checkpoint, abstract, checkpointable_name=ARRAYS)


def amend_notes(file: epath.Path, notes: dict[str, Any]) -> None:
    """Writes notes, JSON, in place of those that were saved with a checkpoint; all or nothing.

    A run that goes back to a checkpoint goes on with other data: its place in the data changes,
    not its arrays. `file` is MODEL_DIR/amended/STEP.json.
    """
    file.parent.mkdir(exist_ok=True)
    atomic_write(file, json.dumps(add_checksum(notes)))


def newest_notes(
    file: epath.Path, step: int, saved: dict[str, Any], say_damage: bool = True
) -> dict[str, Any]:
    """Those that `amend_notes` has written; the saved ones where there are none, or damaged ones.

    All processes call this together. `say_damage`: print that the file is damaged.
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


def _is_json(content: bytes) -> bool:
    try:
        parse_json(content)
    except ValueError:
        return False
    return True
