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


def empty_older(folder: epath.Path, keep: int) -> None:
    """Empties all but the newest `keep` checkpoints in a folder of those set aside.

    Each keeps a file `emptied`, so that a later start knows that there were checkpoints. What
    others have put there under other names stays as it is.
    """
    names = sorted(filter(_is_named_by_us, list_names(folder)), key=_time_and_step)
    for name in names[: max(0, len(names) - keep)]:
        if list_names(folder / name) == ["emptied"]:
            continue
        with contextlib.suppress(OSError):  # the next save tries again
            (folder / name).rmtree()
            (folder / name).mkdir()
            (folder / name / "emptied").write_text("its files were removed\n")


def _is_named_by_us(name: str) -> bool:
    return re.fullmatch("[0-9]+_[0-9]+", name) is not None


def _time_and_step(name: str) -> tuple[int, int]:
    step, time = map(int, name.split("_"))
    return time, step
