"""TPU VMs that are there, are not there yet, or are no more."""

import dataclasses
import time
from collections.abc import Callable, Sequence

from switch_jax.errors import UserError
from switch_jax.launch import newest_checkpoint, tpu_hosts
from switch_jax.launch.commands import (
    Command,
    Step,
    output,
    output_with_retries,
    run_command,
    shell_line,
    write_file,
)
from switch_jax.launch.console import log
from switch_jax.launch.job import Job
from switch_jax.launch.retries import FINAL, PREEMPTED, supervise

POLL_SECONDS = 30.0  # seconds between looks
_RETRY_SECONDS = 300.0  # seconds until slices are asked for again that there were none of
_ABSENT = "NOT_FOUND"  # what gcloud says of what is not there
_FAILED = "FAILED"
_STUCK = ("STOPPED", "HIDDEN")  # no time makes these ready


@dataclasses.dataclass(frozen=True)
class Request:
    """How slices are asked for.

    Attributes:
      nodes: names of the TPU VMs, one a slice.
      describe: prints the slices' state.
      create, delete: make them, and clear away what is left of those that are no more.
      ready: their state when they can be used.
      gone: their states when they are no more, and have to be made again.
    """

    nodes: Sequence[str]
    describe: Command
    create: Command
    delete: Command
    ready: str
    gone: Sequence[str]


def steps(job: Job, request: Request) -> list[Step]:
    """All that `run` may do, in this order."""
    return [
        tpu_hosts.script(job),
        request.describe,
        request.delete,
        request.create,
        *tpu_hosts.steps(job, request.nodes),
        newest_checkpoint.list_checkpoints(job),
    ]


def afterwards(job: Job, request: Request, why: str) -> list[Command]:
    """How to end the job, and to stop paying; `why` says what is given back."""
    back = dataclasses.replace(request.delete, why=f"not done here: {why}")
    return [*(tpu_hosts.stop(job, node) for node in request.nodes), back]


def run(job: Job, request: Request) -> int:
    """Makes the slices where they are not there, and runs the job until it is done or has to stop.

    Returns:
      The exit code of `switch_jax train`.

    Raises:
      UserError: they cannot be made at first, somebody has stopped them, or there is no gcloud.
    """
    first = output(request.describe, _ABSENT)  # who may not even ask is told so at once
    had = first in (request.ready, *request.gone)

    def state() -> str:
        return output_with_retries(request.describe, _ABSENT)

    def attempt() -> int:
        nonlocal had
        _make_ready(job, request, state, had)
        had = True
        code = tpu_hosts.run(job, request.nodes)
        return PREEMPTED if code not in FINAL and state() != request.ready else code

    write_file(tpu_hosts.script(job))
    return supervise(attempt, job.max_restarts, lambda: newest_checkpoint.newest_step(job), log)


def _make_ready(job: Job, request: Request, state: Callable[[], str], had: bool) -> None:
    """Waits until the slices can be used, and makes them where they are not there.

    Args:
      job: what is to run.
      request: how to ask for the slices.
      state: asks for their state.
      had: they were there already: then there is capacity to wait for, and nothing wrong with how
        it is asked for.
    """
    asked, told = False, None
    try:
        while (now := state()) != request.ready:
            if now != told:
                log(f"{job.topology} in {job.zone}: {now or 'not there'}")
                told = now
            if now in _STUCK or (now == _FAILED and asked and not had):
                raise UserError(_why(job, request, now))
            if now == _FAILED or now in request.gone:
                output_with_retries(request.delete, _ABSENT)
            elif now:
                time.sleep(POLL_SECONDS)
            else:
                if asked:
                    time.sleep(_RETRY_SECONDS)
                _ask(request, had)
                asked = True
    except KeyboardInterrupt:
        given_up = f"`{shell_line(request.delete.argv)}` gives them up"
        what = f"goes on waiting for its slices ({told or 'not there'}); {given_up}"
        raise KeyboardInterrupt(what) from None


def _ask(request: Request, had: bool) -> None:
    try:
        run_command(request.create)
    except UserError as error:
        if not had:
            raise
        log(f"{error}; asking again in {_RETRY_SECONDS:.0f} s")


def _why(job: Job, request: Request, state: str) -> str:
    ask, delete = (shell_line(c.argv) for c in (request.describe, request.delete))
    if state == _FAILED:
        return f"no {job.topology} in {job.zone}: {state}; `{ask.rpartition(' ')[0]}` says why"
    start = shell_line(tpu_hosts.gcloud(job, "tpu-vm", "start", job.name))
    return (
        f"{job.name} in {job.zone} is {state}, and will not be {request.ready} by itself: start it "
        f"(`{start}`), or give it up (`{delete}`), and call the same command"
    )


def capacity(job: Job) -> list[str]:
    """The flags that say what kind of capacity is asked for, and whom it acts as."""
    flags = [name for name, given in (("--spot", job.spot), ("--reserved", job.reserved)) if given]
    return flags + ([f"--service-account={job.service_account}"] if job.service_account else [])
