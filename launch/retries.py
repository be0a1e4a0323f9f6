"""Starts a job again after a preemption or a crash, for as long as that makes sense."""

from collections.abc import Callable

# Exit codes of `switch_jax train`: docs/reliability.md. After these a person has to look, or wanted
# it: done, a mistake, does not fit, Ctrl-C.
FINAL = (0, 2, 3, 130)
PREEMPTED = 75  # stopped by SIGTERM, with its state saved


def supervise(
    attempt: Callable[[], int],
    max_restarts: int,
    progress: Callable[[], int | None],
    say: Callable[[str], None],
) -> int:
    """Runs a job until it is done, a person has to look, or it crashes without getting on.

    A preempted job starts again however often; a crash counts, and the count begins anew once the
    job has saved a further checkpoint.

    Args:
      attempt: runs the job once, and gives its exit code.
      max_restarts: most starts after a crash, without a new checkpoint between them.
      progress: the last checkpoint's step; None: there is none.
      say: is given a line at each restart, and where it gives up.

    Returns:
      The exit code of the last attempt.
    """
    crashes, saved = 0, progress()
    while (code := attempt()) not in FINAL:
        before, saved = saved, progress()
        if saved is not None and (before is None or saved > before):
            crashes = 0
        place = "the beginning" if saved is None else f"the checkpoint of step {saved}"
        if code == PREEMPTED:
            say(f"preempted (exit code {code}): starting again from {place}")
            continue
        if crashes == max_restarts:
            say(
                f"crashed (exit code {code}) after {crashes} restarts without a new checkpoint: "
                "giving up; the logs say why"
            )
            return code
        crashes += 1
        say(
            f"crashed (exit code {code}): starting again from {place}, "
            f"restart {crashes} of at most {max_restarts} without a new checkpoint"
        )
    return code
