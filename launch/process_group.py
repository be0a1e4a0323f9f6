"""Processes on this machine that train together: if one fails, the others are ended."""

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import IO

from switch_jax.exit_codes import INTERRUPTED, KILLED, PREEMPTED, TERMINATED
from switch_jax.launch.console import log
from switch_jax.launch.restarts import exit_code

# Seconds for the other processes to save and end, after one was stopped and has saved.
_SAVE_GRACE = 60.0
# Seconds until SIGKILL, after one has failed: the others may wait for it in a collective, where
# SIGTERM has no effect.
_FAILURE_GRACE = 5.0


def run_together(
    commands: Iterable[Sequence[str]], environment: Mapping[str, str], signals: Sequence[int]
) -> int:
    """Runs the processes to their `restarts.exit_code`. Their lines go to standard error.

    The first word of each command, `python`, is replaced by this interpreter. Signals that are
    appended while this runs are sent to all processes; after a second one, they are killed as soon
    as after a failure.
    """
    processes: list[subprocess.Popen[bytes]] = []
    readers: list[threading.Thread] = []
    try:
        for index, (_, *arguments) in enumerate(commands):
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # else a terminal's Ctrl-C would reach them twice
            )
            processes.append(process)
            copy = (process.stdout, index)
            readers.append(threading.Thread(target=_copy_output, args=copy))
            readers[-1].start()
        return _wait(processes, signals)
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for reader in readers:
            reader.join()


def _wait(processes: Sequence[subprocess.Popen[bytes]], signals: Sequence[int]) -> int:
    codes: list[int] = []
    by_us: set[int] = set()  # exit codes that may come from the signals sent here
    sent, kill_at = 0, float("inf")
    running = dict(enumerate(processes))
    while running:
        for number in signals[sent:]:
            sent += 1
            _send(running.values(), number)
            if sent > 1:
                kill_at = min(kill_at, time.monotonic() + _FAILURE_GRACE)
        for index in [i for i, process in running.items() if process.poll() is not None]:
            code = running.pop(index).returncode
            code = 128 - code if code < 0 else code  # 128 + N, as a shell says, after signal N
            first = not any(codes)
            if code not in by_us:
                codes.append(code)
            if code == 0 or not first or not running:
                continue
            stopped = code in (PREEMPTED, INTERRUPTED)
            kill_at = min(kill_at, time.monotonic() + (_SAVE_GRACE if stopped else _FAILURE_GRACE))
            if not stopped:
                log(f"process {index} has ended with exit code {code}: ending the others")
                _send(running.values(), signal.SIGTERM)
                by_us.add(TERMINATED)
        if time.monotonic() >= kill_at:
            _send(running.values(), signal.SIGKILL)
            by_us.add(KILLED)
        time.sleep(0.05)
    return exit_code(codes or [KILLED])


def _send(processes: Iterable[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        process.send_signal(number)


def _copy_output(stream: IO[bytes], index: int) -> None:
    """Copies the output of a process; reads on if it cannot be written, else the process blocks."""
    with stream:
        for line in stream:
            with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
                print(f"[{index}] {line.decode(errors='replace')}", end="", file=sys.stderr)
