"""Real `switch_jax train` processes, one or several that train together."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path, PurePath

from switch_jax.cli import main
from switch_jax.run_folder import RunFolder
from switch_jax.storage import in_bucket, read_appended
from tests.waiting import HANGS, wait_until

TINY = Path(__file__).with_name("tiny.gin")
SMALL = "--gin.NUM_ENCODER_LAYERS=1"  # quicker
ROOT = TINY.parents[2]


def without_virtual_devices() -> dict[str, str]:
    """The environment without the virtual devices of these tests: a mesh makes its own."""
    flags = [f for f in os.environ["XLA_FLAGS"].split() if "device_count" not in f]
    return {**os.environ, "XLA_FLAGS": " ".join(flags)}


def free_port() -> int:
    """Of this machine, a moment ago."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def start(count: int, folder: PurePath, *flags: str) -> list[subprocess.Popen]:
    """Starts `count` processes of one run; what each prints goes to folder.process_I.log."""
    return launch(count, folder, "train", f"--gin_file={TINY}", f"--gin.MODEL_DIR={folder}", *flags)


def launch(count: int, folder: PurePath, *arguments: str) -> list[subprocess.Popen]:
    """Starts `count` processes of a `switch_jax` command that find each other; logs as `start`."""
    command = [sys.executable, "-m", "switch_jax", *arguments]
    env = without_virtual_devices()
    processes, port = [], free_port()
    for index in range(count):
        own = []
        if count > 1:
            own = [f"--coordinator_address=localhost:{port}"]
            own += [f"--process_count={count}", f"--process_index={index}"]
        with _logs(folder).with_suffix(f".process_{index}.log").open("a") as log:
            started = subprocess.Popen(command + own, env=env, cwd=ROOT, stdout=log, stderr=log)
            processes.append(started)
    return processes


def _logs(folder: PurePath) -> Path:
    """The path of the processes' logs, without their ends: beside a folder of this machine."""
    if not in_bucket(folder):
        return Path(folder)
    logs = Path(tempfile.gettempdir(), "switch_jax_logs", *folder.parts[-2:])
    logs.parent.mkdir(parents=True, exist_ok=True)
    return logs


def finish(processes: list[subprocess.Popen], folder: PurePath) -> list[int]:
    """Waits for them; returns their exit codes, and ends them all where one hangs."""
    try:
        return [process.wait(HANGS) for process in processes]
    except subprocess.TimeoutExpired:
        raise AssertionError(f"still running after {HANGS} s: {output(folder)}") from None
    finally:
        for process in processes:
            process.kill()


def run(count: int, folder: PurePath, *flags: str) -> None:
    """Runs to the end, which has to be a good one."""
    codes = finish(start(count, folder, *flags), folder)
    assert codes == [0] * count, output(folder)


def run_here(folder: PurePath, *flags: str) -> None:
    """The same in this process, which need not start."""
    assert main(["train", f"--gin_file={TINY}", f"--gin.MODEL_DIR={folder}", *flags]) == 0


def output(folder: PurePath) -> str:
    """What the processes printed."""
    logs = sorted(_logs(folder).parent.glob(f"{folder.name}.process_*.log"))
    return "\n".join(f"{log.name}:\n{log.read_text()[-3000:]}" for log in logs)


def records(folder: PurePath, kind: str = "train") -> list[dict]:
    """The records of a kind, whole lines alone; a run may still be writing."""
    found, content = [], b""
    with contextlib.suppress(FileNotFoundError):
        content = read_appended(RunFolder(folder).metrics)
    for line in content.splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return [r for r in found if r["kind"] == kind]


def wait_for_step(folder: PurePath, step: int, processes: list[subprocess.Popen]) -> None:
    """Until the run has logged a step; ends them all where that does not happen."""

    def is_logged() -> bool:
        assert all(p.poll() is None for p in processes), output(folder)
        return any(r["step"] >= step for r in records(folder))

    try:
        wait_until(is_logged)
    except BaseException:
        for process in processes:
            process.kill()
        raise


def losses(folder: PurePath) -> dict[int, tuple[str, float]]:
    """Hash of the batch and loss by step; each step's last record counts."""
    return {r["step"]: (r["batch_hashes"], r["loss"]) for r in records(folder)}
