"""Checkpoints that a run does not use any more, in its folders `discarded` and `damaged`.

Each is in a folder of its own, STEP_TIME, with the time in nanoseconds since the epoch.
"""

import contextlib
import re
import shutil
from pathlib import Path


def set_aside(checkpoint: Path, folder: Path, now: int) -> Path:
    """Moves the folder of a checkpoint.

    Args:
      checkpoint: MODEL_DIR/checkpoints/STEP.
      folder: where to; made where it is not there.
      now: nanoseconds since the epoch.

    Returns:
      Where it is now, see `place_of`.

    Raises:
      OSError: it cannot be moved.
    """
    place = place_of(checkpoint, folder, now)
    folder.mkdir(exist_ok=True)
    checkpoint.rename(place)
    return place


def place_of(checkpoint: Path, folder: Path, now: int) -> Path:
    """Where `set_aside` moves a checkpoint."""
    return folder / f"{checkpoint.name}_{now}"


def empty_older(folder: Path, keep: int) -> None:
    """Empties all but the newest `keep` checkpoints in a folder of those set aside.

    The empty folders stay, so that a later start knows that there were checkpoints. What others
    have put there under other names stays as it is.
    """
    paths = sorted(filter(_is_named_by_us, folder.glob("*")), key=_time_and_step)
    for path in paths[: max(0, len(paths) - keep)]:
        with contextlib.suppress(OSError):  # the next save tries again
            shutil.rmtree(path)
            path.mkdir()


def _is_named_by_us(path: Path) -> bool:
    return re.fullmatch("[0-9]+_[0-9]+", path.name) is not None


def _time_and_step(path: Path) -> tuple[int, int]:
    step, time = map(int, path.name.split("_"))
    return time, step
