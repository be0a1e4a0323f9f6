"""Rehearses a pod on this machine: several processes of one run, on virtual CPU devices.

Each process runs the very command that a host of a pod runs, and they find each other as hosts do.
"""

import os
import re
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from switch_jax.launch.commands import shell_line
from switch_jax.launch.console import log
from switch_jax.launch.process_group import run_together
from switch_jax.launch.retries import supervise

_SHOWN_PORT = 8476  # in what is printed; each start takes a free one


def run(
    train: Sequence[str], model_dir: str, process_count: int, max_restarts: int, dry_run: bool
) -> int:
    """Runs `switch_jax train` in several processes until it is done, or a person has to look.

    What the processes print goes to standard error, with [0], [1], ... before each line, and to
    MODEL_DIR/logs, a file for each process and attempt.

    Args:
      train: what follows `switch_jax train`, without the flags by which processes find each other.
      model_dir: what the config in it says.
      process_count: how many processes share the devices of the mesh.
      max_restarts: see `retries.supervise`.
      dry_run: print the commands and run nothing.

    Returns:
      The exit code of `switch_jax train`, see `retries.exit_code`. After Ctrl-C or SIGTERM, which
      the processes are told of, that of the attempt under way, and none follows.

    Raises:
      UserError: the folder cannot be written.
    """
    for index, command in enumerate(commands(train, process_count, _SHOWN_PORT)):
        print(f"# process {index} of {process_count}\nJAX_PLATFORMS=cpu {shell_line(command)}")
    if dry_run:
        return 0
    sys.stdout.flush()

    from switch_jax.checkpointing import saved_steps
    from switch_jax.trainer.folder import make_folder

    folder = make_folder(model_dir)

    def progress() -> int | None:
        return max(saved_steps(folder), default=None)

    with _Signals() as signals:

        def attempt() -> int:
            if signals.noted:
                raise _AskedToStop(128 + signals.noted[0])
            found = commands(train, process_count, _free_port())
            code = run_together(found, _environment(), _new_logs(folder), signals.noted)
            if signals.noted:
                raise _AskedToStop(code)
            return code

        try:
            return supervise(attempt, max_restarts, progress, log)
        except _AskedToStop as asked:
            return asked.exit_code


def commands(train: Sequence[str], process_count: int, port: int) -> list[list[str]]:
    """What each process runs; the first of them coordinates at the port."""
    return [
        [
            "python", "-m", "switch_jax", "train", *train,
            f"--coordinator_address=localhost:{port}",
            f"--process_count={process_count}",
            f"--process_index={index}",
        ]
        for index in range(process_count)
    ]  # fmt: skip


class _AskedToStop(Exception):
    """Ctrl-C or SIGTERM came; `exit_code` is that of the attempt under way."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__()


class _Signals:
    """Notes Ctrl-C and SIGTERM, which are for the processes; in the main thread alone."""

    def __init__(self) -> None:
        self.noted: list[int] = []

    def __enter__(self) -> "_Signals":
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._previous = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.noted.append(number)


def _environment() -> dict[str, str]:
    """CPUs alone, as many as the mesh asks for, and lines as they are printed."""
    flags = re.sub(
        r"--xla_force_host_platform_device_count=\S+", "", os.environ.get("XLA_FLAGS", "")
    )
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}


def _free_port() -> int:
    """Of this machine, a moment ago."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def _new_logs(model_dir: Path) -> str:
    """Where the next attempt logs to, before the number of a process."""
    logs = model_dir / "logs"
    logs.mkdir(exist_ok=True)
    earlier = [int(file.name.split("_")[1]) for file in logs.glob("attempt_*_process_0.log")]
    return str(logs / f"attempt_{max(earlier, default=0) + 1}_process_")
