"""A rehearsal of a pod: several processes on this machine, on virtual CPU devices."""

import contextlib
import dataclasses
import os
import re
import signal
import socket
from collections.abc import Iterator
from types import FrameType
from typing import Annotated

from switch_jax.config import Config
from switch_jax.launch.commands import shell_line
from switch_jax.launch.process_group import run_together
from switch_jax.launch.restarts import supervise
from switch_jax.launch.target import Flag, Target
from switch_jax.run_folder import create_run_folder

_SHOWN_PORT = 8476  # in the printed commands; each start takes a free port


@dataclasses.dataclass(frozen=True, kw_only=True)
class Local(Target):
    """A job on this machine. Its `preflight` does nothing: the processes compile the step."""

    on = "local"

    process_count: Annotated[int, Flag("processes of --on=local (default 2)", "N")] = 2

    def processes(self, port: int) -> list[list[str]]:
        """Returns the command of each process; the first one coordinates the others at the port."""
        return [
            [
                *("python", "-m", "switch_jax", self.subcommand, *self.arguments),
                f"--coordinator_address=localhost:{port}",
                f"--process_count={self.process_count}",
                f"--process_index={index}",
            ]
            for index in range(self.process_count)
        ]

    def check(self, config: Config) -> list[str]:
        from switch_jax.launch import preflight  # loads JAX

        return preflight.check_local(config, self.process_count)

    def describe(self) -> str:
        return "".join(
            f"# process {index} of {self.process_count}\nJAX_PLATFORMS=cpu {shell_line(command)}\n"
            for index, command in enumerate(self.processes(_SHOWN_PORT))
        )

    def run(self) -> int:
        """Runs the processes, and starts them again after failures, see `restarts.supervise`.

        Their output goes to standard error, with [0], [1], ... before each line. Ctrl-C and SIGTERM
        are passed on to them, and end the job. UserError where MODEL_DIR cannot be written.
        """
        folder = create_run_folder(self.model_dir)
        with _collected_signals() as signals:

            def attempt() -> int:
                return run_together(self.processes(_free_port()), _environment(), signals)

            return supervise(attempt, self.restarts, folder, signals)


@contextlib.contextmanager
def _collected_signals() -> Iterator[list[int]]:
    """The numbers of Ctrl-C and SIGTERM as they come, to pass them on; in the main thread only."""
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, receive) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _environment() -> dict[str, str]:
    """The environment of the processes, which use CPUs only."""
    count = r"--xla_force_host_platform_device_count=\S+"
    flags = re.sub(count, "", os.environ.get("XLA_FLAGS", ""))
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
