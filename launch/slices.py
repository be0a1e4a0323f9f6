"""TPU VMs that are there, are not there yet, or are no more."""

import time
from collections.abc import Callable, Collection

from switch_jax.launch import checkpoints, hosts
from switch_jax.launch.job import Job
from switch_jax.launch.processes import say
from switch_jax.launch.retries import FINAL, PREEMPTED, supervise
from switch_jax.launch.steps import Command, answer, take, write

from switch_jax.errors import UserError

POLL = 30.0  # seconds between looks
_TRIES = 20  # looks until the launching machine's network is taken for gone
_ABSENT = "NOT_FOUND"  # what gcloud says of what is not there


def run(
    job: Job,
    nodes: list[str],
    describe: Command,
    create: Command,
    delete: Command,
    ready: str,
    gone: Collection[str],
) -> int:
    """Makes the slices where they are not there, and runs the job until it is done or has to stop.

    Args:
      job: what to run.
      nodes: names of the TPU VMs, one a slice.
      describe: prints the slices' state.
      create, delete: make them, and clear away what is left of those that are no more.
      ready: their state when they can be used.
      gone: their states when they are no more, and have to be made again.

    Returns:
      The exit code of `switch_jax train`.

    Raises:
      UserError: they cannot be made, or there is no gcloud.
    """

    def state() -> str:
        return _patiently(describe)

    def attempt() -> int:
        _make_ready(job, state, describe, create, delete, ready, gone)
        code = hosts.run(job, nodes)
        return PREEMPTED if code not in FINAL and state() != ready else code

    answer(describe, absent=_ABSENT)  # who may not even ask is told so at once
    write(hosts.script(job))
    return supervise(attempt, job.max_restarts, lambda: checkpoints.last(job), say)


def _patiently(command: Command) -> str:
    """The answer, also where the network is away for some minutes; the job goes on meanwhile."""
    for _ in range(_TRIES - 1):
        try:
            return answer(command, absent=_ABSENT)
        except UserError as error:
            say(f"{error}; asking again in {POLL:.0f} s")
            time.sleep(POLL)
    return answer(command, absent=_ABSENT)


def _make_ready(
    job: Job,
    state: Callable[[], str],
    describe: Command,
    create: Command,
    delete: Command,
    ready: str,
    gone: Collection[str],
) -> None:
    asked, told = False, None
    while (now := state()) != ready:
        if now != told:
            say(f"{job.topology} in {job.zone}: {now or 'not there'}")
            told = now
        if now == "FAILED" and asked:
            ask = " ".join(describe.argv[:-1])
            raise UserError(f"no {job.topology} in {job.zone}: FAILED; `{ask}` says why")
        if now in gone:
            take(delete)
        elif not now:
            take(create)
            asked = True
        else:
            time.sleep(POLL)


def capacity(job: Job) -> list[str]:
    """The flags that say what kind of capacity is asked for, and whom it acts as."""
    flags = [name for name, given in (("--spot", job.spot), ("--reserved", job.reserved)) if given]
    return flags + ([f"--service-account={job.service_account}"] if job.service_account else [])
