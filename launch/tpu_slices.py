"""Slices of TPU VMs: created or waited for, and created again if they are taken away."""

import abc
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar

from switch_jax.errors import UserError
from switch_jax.exit_codes import PREEMPTED
from switch_jax.launch import google_cloud, setup_commands, tpu_hosts
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
from switch_jax.launch.job import ServiceAccount
from switch_jax.launch.retries import FINAL, supervise
from switch_jax.launch.target import Flag
from switch_jax.run_folder import RunFolder

POLL_SECONDS = 30.0  # between two looks at the slices' state
_RETRY_SECONDS = 300.0  # before slices are requested again, if there was no capacity
_NOT_FOUND = "NOT_FOUND"  # gcloud's word for what does not exist
_FAILED = "FAILED"
_STUCK = ("STOPPED", "HIDDEN")  # waiting does not make these ready


@dataclasses.dataclass(frozen=True)
class SliceRequest:
    """The commands for the slices of a job.

    Attributes:
      nodes: names of the TPU VMs, one for each slice.
      describe: prints the state of the slices.
      create: requests the slices.
      delete: gives them back, or clears away what a preemption has left of them.
      ready: the state of slices that can be used.
      gone: the states of slices that were taken away and have to be created again.
    """

    nodes: Sequence[str]
    describe: Command
    create: Command
    delete: Command
    ready: str
    gone: Sequence[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuSlicesTarget(google_cloud.GoogleCloudTarget):
    """Slices of TPU VMs. This machine starts the job on them by ssh.

    Attributes:
      kind: what gcloud calls them.
      give_back: why to delete the slices, for the comment above that command.
    """

    kind: ClassVar[str]
    give_back: ClassVar[str]

    service_account: ServiceAccount = None
    network: Annotated[str | None, Flag("network of TPU VMs (default: default)", "NAME")] = None
    subnetwork: Annotated[str | None, Flag("subnetwork of TPU VMs", "NAME")] = None
    internal_ips: Annotated[bool, Flag("TPU VMs without addresses on the internet")] = False

    @abc.abstractmethod
    def request(self) -> SliceRequest:
        """The commands for the job's slices."""

    def gcloud(self, verb: str, why: str, *flags: str) -> Command:
        """A command of gcloud for the job's slices."""
        return Command((*tpu_hosts.gcloud(self, self.kind, verb, self.job_name), *flags), why)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hardware.generation.cloud.runtime is None:
            raise UserError(
                f"--on={self.on}: Google Cloud offers {self.hardware.generation.name} on GKE only"
            )
        google_cloud.check_usual_shape(self.hardware)

    def resources(self) -> list[Command]:
        return setup_commands.secret_manager(self)

    def commands(self) -> list[Step]:
        request = self.request()
        return [
            tpu_hosts.script(self),
            request.describe,
            request.delete,
            request.create,
            *tpu_hosts.commands(self, request.nodes),
        ]

    def afterwards(self) -> list[Command]:
        request = self.request()
        stops = [tpu_hosts.stop(self, node) for node in request.nodes]
        why = f"later, run it yourself: {self.give_back}"
        return [*stops, dataclasses.replace(request.delete, why=why)]

    def start_and_follow(self) -> int:
        """Creates the slices if needed, and runs the job until it is done or has to stop.

        Raises:
          UserError: the first slices cannot be created, somebody has stopped them, or gcloud is not
            installed.
        """
        request = self.request()
        # Without retries: an account that may not ask for the state is an error at once.
        first = output(request.describe, _NOT_FOUND)
        had_slices = first in (request.ready, *request.gone)

        def state() -> str:
            return output_with_retries(request.describe, _NOT_FOUND)

        def attempt() -> int:
            nonlocal had_slices
            _wait_until_ready(self, request, state, had_slices)
            had_slices = True
            code = tpu_hosts.run(self, request.nodes)
            return PREEMPTED if code not in FINAL and state() != request.ready else code

        write_file(tpu_hosts.script(self))
        return supervise(attempt, self.restarts, RunFolder.at(self.model_dir))


def _wait_until_ready(
    job: TpuSlicesTarget, request: SliceRequest, state: Callable[[], str], had_slices: bool
) -> None:
    """Waits until the slices can be used, and creates them if they do not exist.

    Args:
      job: what is to run.
      request: the commands for the slices.
      state: returns their state; "" if they do not exist.
      had_slices: whether there were slices before. Then the request is known to be right, and a
        refusal means that there is no capacity at the moment.
    """
    asked, logged = False, None
    try:
        while (now := state()) != request.ready:
            if now != logged:
                log(f"{job.topology} in {job.zone}: {now or 'not there'}")
                logged = now
            if now in _STUCK or (now == _FAILED and asked and not had_slices):
                raise UserError(
                    f"{job.job_name}, {job.topology} in {job.zone}, is {now}: it will not be "
                    f"{request.ready} by itself (`{shell_line(request.delete.argv)}` gives it up)"
                )
            if now == _FAILED or now in request.gone:
                output_with_retries(request.delete, _NOT_FOUND)
            elif now:
                time.sleep(POLL_SECONDS)
            else:
                if asked:
                    time.sleep(_RETRY_SECONDS)
                _create(request, had_slices)
                asked = True
    except KeyboardInterrupt:
        given_up = f"`{shell_line(request.delete.argv)}` gives them up"
        phase = f"goes on waiting for its slices ({logged or 'not there'}); {given_up}"
        raise KeyboardInterrupt(phase) from None


def _create(request: SliceRequest, had_slices: bool) -> None:
    try:
        run_command(request.create)
    except UserError as error:
        if not had_slices:
            raise
        log(f"{error}; asking again in {_RETRY_SECONDS:.0f} s")


def slice_flags(job: TpuSlicesTarget) -> list[str]:
    """gcloud's flags for the kind of capacity, and for account and network of the hosts."""
    named = {
        "service-account": job.service_account,
        "network": job.network,
        "subnetwork": job.subnetwork,
    }
    return [
        *(["--spot"] if job.spot else []),
        *(["--reserved"] if job.reserved else []),
        *(["--internal-ips"] if job.internal_ips else []),
        *(f"--{flag}={value}" for flag, value in named.items() if value),
    ]
