"""What a run is doing, in its folder, for those who look at files alone."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from switch_jax.checkpointing import RunLock
from switch_jax.errors import UserError
from switch_jax.paths import local_path, write_whole, writing
from switch_jax.runtime.processes import process_index_and_count
from switch_jax.trainer.signals import Stopped

# Bytes of a message in JSON with which the file stays within the smallest block of a disk, 512.
_ROOM = 300


class Life:
    """Keeps `status.json`: the state of this start of a run, and how it ended.

    The states are 'starting', 'running', and at the end 'finished', 'stopped' (by a signal) or
    'failed'. Of a process that is killed the last one stays.
    """

    def __init__(self, model_dir: Path, active: bool) -> None:
        """Begins.

        Args:
          model_dir: the run's folder.
          active: False on the processes that write nothing.

        Raises:
          UserError: the folder cannot be written.
        """
        self._file, self._active, self._started = model_dir / "status.json", active, time.time()
        with writing(self._file):
            self._write("starting")

    def running(self) -> None:
        """Steps begin."""
        with writing(self._file):
            self._write("running")

    def __enter__(self) -> "Life":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Writes the end."""
        message = "" if error is None else (str(error).splitlines() or [type(error).__name__])[0]
        if error is None:
            self._write_last("finished")
        elif isinstance(error, Stopped | KeyboardInterrupt):
            self._write_last("stopped", message)
        elif isinstance(error, UserError):
            self._write_last("failed", message)
        else:
            self._write_last("failed", f"{type(error).__name__}: {message}")

    def _write(self, state: str, message: str = "") -> None:
        if self._active:
            write_whole(self._file, self._text(state, message))

    def _write_last(self, state: str, message: str = "") -> None:
        """Writes the end, over the old text where a full disk has no room for a second file."""
        with contextlib.suppress(OSError):  # what is wrong with the folder has been said
            try:
                self._write(state, message)
            except OSError:
                # Within the block of the disk that the file has already.
                text = self._text(state, _beginning(message))
                with self._file.open("r+b") as file:
                    file.write(text.encode())
                    file.truncate()

    def _text(self, state: str, message: str) -> str:
        facts = {
            "state": state,
            "message": message,
            "time": time.time(),
            "started": self._started,
            "processes": process_index_and_count()[1],
        }
        return json.dumps(facts, indent=2) + "\n"


def _beginning(message: str) -> str:
    """As much of it as there is room for: in JSON a character has up to 12 bytes."""
    message = message[:_ROOM]
    while len(json.dumps(message)) > _ROOM:
        message = message[:-1]
    return message


@contextlib.contextmanager
def recording_early_failures(model_dir: str) -> Iterator[None]:
    """Within, a start that fails before it has a `Life` is recorded in `status.json` too.

    Else a run that crashed, and is refused when it is started again, would seem to be running. A
    folder without that file, or that another job uses, is left alone.

    Args:
      model_dir: MODEL_DIR; a folder or bucket that need not be there.
    """
    try:
        yield
    except UserError as error:
        if process_index_and_count()[0] == 0:
            _record(model_dir, error)
        raise


def _record(model_dir: str, failure: UserError) -> None:
    with contextlib.suppress(UserError, OSError):
        folder = local_path(model_dir)
        if (folder / "status.json").exists():
            with contextlib.closing(RunLock(folder)), Life(folder, active=True):
                raise failure  # for Life to write
