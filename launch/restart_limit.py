"""Runs the trainer in a pod of a JobSet, unless it has been started too often without a checkpoint.

    python -m switch_jax.launch.restart_limit gs://my-bucket/runs/base 3 -- switch_jax train ...

Kubernetes counts the restarts of a JobSet's whole life, so a long run would end after some tens of
preemptions. This counts those since the newest checkpoint, in MODEL_DIR, on the first host of the
first slice: all hosts are started together. After too many it does not run the command, and its
exit code is 2, with which the JobSet ends; else it passes on signals and the command's exit code.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from switch_jax.exit_codes import MISTAKE
from switch_jax.launch.console import log
from switch_jax.launch.restarts import FINAL
from switch_jax.run_folder import STARTS, RunFolder, read_object
from switch_jax.storage import write_file
from switch_jax.utils.errors import UserError

# Variables of libtpu, which GKE sets; a slice of one host, or a single slice, may have none.
_FIRST = {"MEGASCALE_SLICE_ID": "0", "TPU_WORKER_ID": "0"}


def main() -> None:
    """Runs the command of sys.argv, and ends with its exit code."""
    end = sys.argv.index("--")
    (model_dir, max_restarts), command = sys.argv[1:end], sys.argv[end + 1 :]
    counts = all(os.environ.get(name, first) == first for name, first in _FIRST.items())
    folder = RunFolder.at(model_dir)
    if counts and not may_start(folder, int(max_restarts)):
        sys.exit(MISTAKE)
    code = _run(command)
    if counts and code in FINAL:  # whoever starts it again has looked at it
        _forget(folder)
    sys.exit(code)


def may_start(folder: RunFolder, max_restarts: int) -> bool:
    """Counts a start in the run's folder; False if there were too many without a new checkpoint.

    A later launch counts anew. True if the folder cannot be read or written now: the start itself
    will tell.
    """
    try:
        before = {"step": 0, "starts": 0} | read_object(folder.starts, STARTS).value
        newest = max([before["step"], *folder.checkpoint_steps()])
        starts = 1 if newest > before["step"] else before["starts"] + 1
        if starts > max_restarts + 1:
            log(f"{max_restarts} restarts without a checkpoint after step {newest}: giving up")
            _forget(folder)
            return False
        write_file(folder.starts, json.dumps({"step": newest, "starts": starts}))
    except (UserError, OSError) as error:
        log(f"this start is not counted: {error}")
    return True


def _forget(folder: RunFolder) -> None:
    try:
        folder.starts.unlink(missing_ok=True)
    except (UserError, OSError) as error:
        log(f"{folder.starts} stays there: {error}")


def _run(command: Sequence[str]) -> int:
    """Runs a command, passes signals on to it, and returns its exit code as a shell gives it."""
    started: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _: object) -> None:
        if not started:
            sys.exit(128 + number)
        started[0].send_signal(number)

    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    started.append(subprocess.Popen(command))
    code = started[0].wait()
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    main()
