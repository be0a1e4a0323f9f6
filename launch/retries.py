"""Starts a job again after a preemption or a crash, for as long as that makes sense."""

import time
from collections.abc import Callable, Iterable

# Exit codes of `switch_jax train`: docs/reliability.md. After these a person has to look, or wanted
# it: done, a mistake, does not fit, Ctrl-C.
FINAL = (0, 2, 3, 130)
PREEMPTED = 75  # stopped by SIGTERM, with its state saved
INTERRUPTED, KILLED, TERMINATED = 130, 137, 143
UNREACHABLE = 255  # ssh's, where the connection cannot be made, or breaks

# Of several exit codes the one with the highest rank is the job's; any other is a crash, rank 1.
_RANKS = {0: 0, PREEMPTED: 2, INTERRUPTED: 3, 2: 4, 3: 4, KILLED: 5, UNREACHABLE: 6}

# Seconds until the next start, while a host cannot be reached: more than an hour in all.
_RETRY_SECONDS = [30.0, 60.0, 120.0, 240.0, *[300.0] * 11]


def exit_code(codes: Iterable[int]) -> int:
    """The job's exit code of those of its processes or hosts; 0 where there are none.

    One that cannot be reached decides, then one that was killed: nothing that happens to others
    leads to that, while its end may leave them with any error. Then a mistake (2, 3), which is the
    same at the next start; then Ctrl-C; then SIGTERM (75), after which all is saved, so that a
    crash of one that was ending does not matter; then a crash.

    Args:
      codes: as a shell gives them, in the order in which they ended; without those of processes
        that the launcher has killed.
    """
    return max(codes, key=lambda code: _RANKS.get(code, 1), default=0)  # of several the first


def supervise(
    attempt: Callable[[], int],
    max_restarts: int,
    progress: Callable[[], int | None],
    log: Callable[[str], None],
) -> int:
    """Runs a job until it is done, a person has to look, or it crashes without getting on.

    A preempted job starts again however often; a crash counts, and the count begins anew once the
    job has saved a further checkpoint. Where a host cannot be reached, it waits, and longer from
    try to try; only after an hour of that it counts.

    Args:
      attempt: runs the job once, and gives its exit code.
      max_restarts: most starts after a crash, without a new checkpoint between them.
      progress: the last checkpoint's step; None: there is none, or nobody can tell.
      log: is given a line at each restart, and where it gives up.

    Returns:
      The exit code of the last attempt.
    """
    crashes, unreached, farthest = 0, 0, progress()
    while (code := attempt()) not in FINAL:
        saved = progress()
        if saved is not None and (farthest is None or saved > farthest):
            crashes, unreached, farthest = 0, 0, saved
        last = farthest if saved is None else saved
        place = "the beginning" if last is None else f"the checkpoint of step {last}"
        unreached = unreached + 1 if code == UNREACHABLE else 0
        if 0 < unreached <= len(_RETRY_SECONDS):
            pause = _RETRY_SECONDS[unreached - 1]
            log(f"a host cannot be reached (exit code {code}): starting again in {pause:.0f} s")
            time.sleep(pause)
            continue
        if code == PREEMPTED:
            log(f"preempted (exit code {code}): starting again from {place}")
            continue
        if crashes == max_restarts:
            log(
                f"crashed (exit code {code}) after {crashes} restarts without a new checkpoint: "
                "giving up; the logs say why"
            )
            return code
        crashes += 1
        log(
            f"crashed (exit code {code}): starting again from {place}, "
            f"restart {crashes} of at most {max_restarts} without a new checkpoint"
        )
    return code
