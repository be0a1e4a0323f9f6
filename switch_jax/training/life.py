"""What a run is doing, in its folder, for those who look at files alone."""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import jax

from switch_jax.errors import UserError
from switch_jax.paths import told, write_whole
from switch_jax.training.stopping import Stopped


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
        with told(self._file):
            self._write("starting")

    def running(self) -> None:
        """Steps begin."""
        with told(self._file):
            self._write("running")

    def __enter__(self) -> "Life":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Tells the end."""
        message = "" if error is None else (str(error).splitlines() or [type(error).__name__])[0]
        with contextlib.suppress(OSError):  # the disk is full, and that has been told
            if error is None:
                self._write("finished")
            elif isinstance(error, Stopped | KeyboardInterrupt):
                self._write("stopped", message)
            elif isinstance(error, UserError):
                self._write("failed", message)
            else:
                self._write("failed", f"{type(error).__name__}: {message}")

    def _write(self, state: str, message: str = "") -> None:
        if not self._active:
            return
        facts = {
            "state": state,
            "message": message,
            "time": time.time(),
            "started": self._started,
            "processes": jax.process_count(),
        }
        write_whole(self._file, json.dumps(facts, indent=2) + "\n")
