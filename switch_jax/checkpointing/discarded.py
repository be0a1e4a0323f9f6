"""Checkpoints that a run has set aside, in its folders `discarded` and `damaged`.

Each is in a folder of its own, STEP_TIME, with the time in nanoseconds since the epoch.
"""

import contextlib
import re

from etils import epath

from switch_jax.storage import list_names, move_folder


def discard(checkpoint: epath.Path, folder: epath.Path, now: int) -> epath.Path:
    """Moves the folder of a checkpoint; no bytes are copied.

    Args:
      checkpoint: MODEL_DIR/checkpoints/STEP.
      folder: where to; made where it is not there.
      now: nanoseconds since the epoch.

    Returns:
      Where it is now, see `discarded_path`.

    Raises:
      OSError: it cannot be moved.
    """
    place = discarded_path(checkpoint, folder, now)
    folder.mkdir(exist_ok=True)
    move_folder(checkpoint, place)
    return place


def discarded_path(checkpoint: epath.Path, folder: epath.Path, now: int) -> epath.Path:
    """Where `discard` moves a checkpoint."""
    return folder / f"{checkpoint.name}_{now}"


def remove_older(folder: epath.Path, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints from a folder of those set aside.

    What others have put there under other names stays as it is.
    """
    ours = [name for name in list_names(folder) if re.fullmatch("[0-9]+_[0-9]+", name)]
    newest_first = sorted(
        ours, key=lambda name: [*map(int, reversed(name.split("_")))], reverse=True
    )
    for name in newest_first[keep:]:
        with contextlib.suppress(OSError):  # the next save tries again
            (folder / name).rmtree()
