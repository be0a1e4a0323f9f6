"""Starts a job again after a preemption or a crash, as long as it makes progress."""

import time
from collections.abc import Callable, Iterable, Sequence

from switch_jax.exit_codes import (
    DOES_NOT_FIT,
    DONE,
    INTERRUPTED,
    KILLED,
    MISTAKE,
    PREEMPTED,
    UNREACHABLE,
)
from switch_jax.launch.console import log
from switch_jax.run_folder import RunFolder
from switch_jax.utils.errors import UserError

# After these a job is not started again.
FINAL = (DONE, MISTAKE, DOES_NOT_FIT, INTERRUPTED)
# Of several exit codes the first in this order is the job's. All that are in neither list mean a
# crash, which comes after both, and before DONE.
_FIRST = (UNREACHABLE, KILLED)
BEFORE_CRASHES = (MISTAKE, DOES_NOT_FIT, INTERRUPTED, PREEMPTED)

# Seconds before each new start while a host cannot be reached: more than an hour in total.
_RETRY_SECONDS = [30.0, 60.0, 120.0, 240.0, *[300.0] * 11]


def exit_code(codes: Iterable[int]) -> int:
    """The exit code of a job, from those of its processes or hosts; 0 if there are none.

    `codes` are as a shell gives them, in the order in which the processes ended, but for those that
    the launcher killed. A lost host or a killed process may give the others any error. A mistake
    would happen again. After SIGTERM the state is saved: a crash at the end is no matter.
    """
    codes = list(codes)
    crashes = [code for code in codes if code != DONE]
    deciding = (code for code in (*_FIRST, *BEFORE_CRASHES, *crashes) if code in codes)
    return next(deciding, DONE)


def supervise(
    attempt: Callable[[], int],
    max_restarts: int,
    folder: RunFolder,
    asked_to_stop: Sequence[int] = (),
) -> int:
    """Runs a job until it is done, makes a mistake, or keeps crashing; returns the last exit code.

    Crashes count as restarts; a new checkpoint in the folder sets their count to 0. Preemptions do
    not count. While a host cannot be reached, the pauses get longer; after an hour this counts as a
    crash too.

    `attempt` runs the job once and returns its exit code. Signals are appended to `asked_to_stop`
    as they come: nothing starts after one; where none ran when it came, its exit code is returned.
    """
    crashes, unreached, farthest = 0, 0, _newest_step(folder)
    while not asked_to_stop:
        code = attempt()
        if code in FINAL or asked_to_stop:
            return code
        saved = _newest_step(folder)
        if saved is not None and (farthest is None or saved > farthest):
            crashes, unreached, farthest = 0, 0, saved
        last = farthest if saved is None else saved
        start = "the beginning" if last is None else f"the checkpoint of step {last}"
        unreached = unreached + 1 if code == UNREACHABLE else 0
        if 0 < unreached <= len(_RETRY_SECONDS):
            pause = _RETRY_SECONDS[unreached - 1]
            log(f"a host cannot be reached (exit code {code}): starting again in {pause:.0f} s")
            time.sleep(pause)
            continue
        if code == PREEMPTED:
            log(f"preempted (exit code {code}): starting again from {start}")
            continue
        if crashes == max_restarts:
            restarts = f" after {crashes} restarts without a new checkpoint: giving up"
            log(f"ended with exit code {code}{restarts if crashes else ''}; the logs say why")
            return code
        crashes += 1
        log(
            f"crashed (exit code {code}): starting again from {start}, "
            f"restart {crashes} of at most {max_restarts} without a new checkpoint"
        )
    return 128 + asked_to_stop[0]


def _newest_step(folder: RunFolder) -> int | None:
    """Returns the newest step, or None if there is no checkpoint or the folder cannot be read."""
    try:
        return max(folder.checkpoint_steps(), default=None)
    except UserError as error:
        log(f"whether there is a new checkpoint is not known: {error}")
        return None
