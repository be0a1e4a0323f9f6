"""The state of a run in `status.json`, for those who see its folder alone."""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from typing import Any

from switch_jax.checkpointing import lock_run
from switch_jax.run_folder import RunFolder, RunPhase, read_object
from switch_jax.runtime.multihost import process_index_and_count
from switch_jax.storage import atomic_write, explain_write_errors
from switch_jax.trainer.signals import Stopped
from switch_jax.utils.errors import UserError

# A message is cut to so many ASCII letters, so that the file fits into a block, 512 bytes.
_LETTERS = 150


class StatusFile:
    """Keeps `status.json`: the state of this start of a run, and how it ended.

    A context manager: at its end it writes 'finished', 'stopped' (by a signal) or 'failed'.
    """

    def __init__(self, folder: RunFolder, active: bool) -> None:
        """Writes 'starting', where active; UserError: the folder cannot be written."""
        self._file, self._active, self._started = folder.status, active, time.time()
        with explain_write_errors(self._file):
            self._write(RunPhase.STARTING)

    def running(self) -> None:
        """Writes 'running': the first step is about to begin."""
        with explain_write_errors(self._file):
            self._write(RunPhase.RUNNING)

    def __enter__(self) -> "StatusFile":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self._write_last(RunPhase.FINISHED)
            return
        message = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, Stopped | KeyboardInterrupt):
            self._write_last(RunPhase.STOPPED, message)
            return
        named = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        self._write_last(RunPhase.FAILED, named + message)

    def _write(self, state: RunPhase, message: str = "") -> None:
        if self._active:
            atomic_write(self._file, self._json(state, message))

    def _write_last(self, state: RunPhase, message: str = "") -> None:
        """Writes the last state, over the old text where a full disk has no room for a new file."""
        with contextlib.suppress(OSError):  # an earlier error has named what is wrong
            try:
                self._write(state, message)
            except OSError:
                # Short enough for the block of the disk that the file already has.
                short = re.sub(r"[^ -~]", "?", message)[:_LETTERS]
                with open(self._file, "r+b") as file:
                    file.write(self._json(state, short).encode())
                    file.truncate()

    def _json(self, state: RunPhase, message: str) -> str:
        content = {
            "state": state,
            "message": message,
            "time": time.time(),
            "started": self._started,
            "processes": process_index_and_count()[1],
        }
        return json.dumps(content, indent=2) + "\n"


@contextlib.contextmanager
def record_early_failure(model_dir: str) -> Iterator[None]:
    """Within, a start that fails before it has a `StatusFile` is recorded in `status.json` too.

    Otherwise the run would seem to go on. Nothing is written where a run has ended, where there is
    no such file, or where another job uses MODEL_DIR.
    """
    try:
        yield
    except UserError as error:
        if process_index_and_count()[0] == 0:
            _record(model_dir, error)
        raise


def _record(model_dir: str, failure: UserError) -> None:
    with contextlib.suppress(UserError, OSError):
        folder = RunFolder.at(model_dir)
        if read_object(folder.status).value.get("state") in (RunPhase.STARTING, RunPhase.RUNNING):
            with contextlib.closing(lock_run(folder, wait=False)), StatusFile(folder, active=True):
                raise failure  # StatusFile writes it
