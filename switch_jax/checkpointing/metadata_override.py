"""Metadata of a checkpoint, its notes, in place of those that were saved with it.

After a return to a checkpoint the run goes on with other data, and so the checkpoint gets another
place in the data, without being saved again.
"""

import json
import sys
from typing import Any

from etils import epath

from switch_jax.checkpointing.integrity import add_checksum, try_to_read, verify_checksum
from switch_jax.runtime.processes import is_first
from switch_jax.storage import atomic_write, read_bytes
from switch_jax.terminal import say


def write_metadata_override(file: epath.Path, notes: dict[str, Any]) -> None:
    """Writes all of the file, or nothing; OSError if it cannot be written."""
    file.parent.mkdir(exist_ok=True)
    atomic_write(file, json.dumps(add_checksum(notes)))


def newest_metadata(
    file: epath.Path, step: int, saved: dict[str, Any], say_damage: bool = True
) -> dict[str, Any]:
    """Those of the file; those that were saved with the checkpoint where there are none.

    Of a damaged file the saved notes are taken. All processes call this together.

    Args:
      file: MODEL_DIR/amended/STEP.json.
      step: of the checkpoint.
      saved: with the checkpoint.
      say_damage: print that the file is damaged.
    """

    def read() -> dict[str, Any] | None:
        try:
            text = read_bytes(file)
        except FileNotFoundError:
            return None
        return verify_checksum(json.loads(text))

    amended, damage = try_to_read(read)
    if damage is not None and say_damage and is_first():
        say(
            f"{file} is damaged ({damage}): the checkpoint of step {step} is used with the "
            "notes saved in it, so batches that a rollback skipped are read again",
            sys.stdout,
        )
    return saved if amended is None or damage is not None else amended
