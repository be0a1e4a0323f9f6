"""Slices of TPU VMs: created or waited for, and created again if they are taken away."""

import abc
import dataclasses
import re
import time
from collections.abc import Callable, Sequence

from switch_jax.errors import UserError
from switch_jax.launch import google_cloud, setup_commands, tpu_hosts
from switch_jax.launch.commands import (
    Command,
    Step,
    output,
    output_with_retries,
    quote,
    run_command,
    shell_line,
    write_file,
)
from switch_jax.launch.console import log
from switch_jax.launch.job import WORD, Job
from switch_jax.launch.retries import FINAL, PREEMPTED, supervise
from switch_jax.run_folder import RunFolder

POLL_SECONDS = 30.0  # between two looks at the slices' state
_RETRY_SECONDS = 300.0  # before slices are requested again, if there was no capacity
_NOT_FOUND = "NOT_FOUND"  # gcloud's word for what does not exist
_FAILED = "FAILED"
_STUCK = ("STOPPED", "HIDDEN")  # waiting does not make these ready
_LONGEST_EMAIL = 254
# docs.cloud.google.com/iam/docs
_EMAIL = rf"{WORD}@{WORD}\.gserviceaccount\.com"


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


class TpuSlicesTarget(google_cloud.GoogleCloudTarget):
    """Slices of TPU VMs. This machine starts the job on them by ssh.

    Attributes:
      kind: what gcloud calls them.
      give_back: why to delete the slices, for the comment above that command.
    """

    optional_flags = (*google_cloud.GoogleCloudTarget.optional_flags, "label")
    kind: str
    give_back: str

    @abc.abstractmethod
    def request(self, job: Job) -> SliceRequest:
        """The commands for the job's slices."""

    def command(self, job: Job, verb: str, why: str, *flags: str) -> Command:
        """A command of gcloud for the job's slices."""
        return Command((*tpu_hosts.gcloud(job, self.kind, verb, job.name), *flags), why)

    def check_job(self, job: Job) -> None:
        account, generation = job.service_account, job.hardware.generation
        if account is not None and not (
            re.fullmatch(_EMAIL, account) and len(account) <= _LONGEST_EMAIL
        ):
            raise UserError(
                f"--service_account={quote(account)}: with --on={self.name} it is an e-mail "
                "address, as in NAME@PROJECT.iam.gserviceaccount.com"
            )
        if generation.cloud.runtime is None:
            raise UserError(
                f"--on={self.name}: Google Cloud offers {generation.name} on GKE only: write "
                "--on=gke"
            )
        google_cloud.check_usual_shape(job.hardware)

    def resources(self, job: Job) -> list[Command]:
        install = ("gcloud", "components", "install", "alpha", "--quiet")
        why = "install gcloud alpha, which reaches all hosts at once; apt's package has it already"
        enable = [
            setup_commands.enable("tpu.googleapis.com", job.project),
            setup_commands.once(install, why),
        ]
        own = re.fullmatch(r"(.+)@(.+)\.iam\.gserviceaccount\.com", job.service_account or "")
        if not own:
            return enable
        create = ("gcloud", "iam", "service-accounts", "create", own[1], f"--project={own[2]}")
        return [*enable, setup_commands.once(create, "create the account that the hosts use")]

    def members(self, job: Job) -> setup_commands.Members:
        account = job.service_account
        hosts = f"serviceAccount:{account}" if account else setup_commands.DEFAULT_ACCOUNT
        return setup_commands.Members(hosts, image_reader=hosts, secret_reader=hosts)

    def commands(self, job: Job) -> list[Step]:
        request = self.request(job)
        return [
            tpu_hosts.script(job),
            request.describe,
            request.delete,
            request.create,
            *tpu_hosts.commands(job, request.nodes),
        ]

    def afterwards(self, job: Job) -> list[Command]:
        request = self.request(job)
        stops = [tpu_hosts.stop(job, node) for node in request.nodes]
        why = f"later, run it yourself: {self.give_back}"
        return [*stops, dataclasses.replace(request.delete, why=why)]

    def start_and_follow(self, job: Job) -> int:
        """Creates the slices if needed, and runs the job until it is done or has to stop.

        Raises:
          UserError: the first slices cannot be created, somebody has stopped them, or gcloud is not
            installed.
        """
        request = self.request(job)
        # Without retries: an account that may not ask for the state is an error at once.
        first = output(request.describe, _NOT_FOUND)
        had_slices = first in (request.ready, *request.gone)

        def state() -> str:
            return output_with_retries(request.describe, _NOT_FOUND)

        def attempt() -> int:
            nonlocal had_slices
            _wait_until_ready(job, request, state, had_slices)
            had_slices = True
            code = tpu_hosts.run(job, request.nodes)
            return PREEMPTED if code not in FINAL and state() != request.ready else code

        write_file(tpu_hosts.script(job))
        return supervise(attempt, job.max_restarts, RunFolder.at(job.model_dir))


def _wait_until_ready(
    job: Job, request: SliceRequest, state: Callable[[], str], had_slices: bool
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
                raise UserError(_never_ready(job, request, now))
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


def _never_ready(job: Job, request: SliceRequest, state: str) -> str:
    """Why waiting is of no use, and what to do."""
    describe, delete = (shell_line(c.argv) for c in (request.describe, request.delete))
    if state == _FAILED:
        ask = describe.rpartition(" ")[0]  # without --format: all that is known
        return f"no {job.topology} in {job.zone}: {state}; `{ask}` says why"
    start = shell_line(tpu_hosts.gcloud(job, "tpu-vm", "start", job.name))
    return (
        f"{job.name} in {job.zone} is {state}, and will not be {request.ready} by itself: start it "
        f"(`{start}`), or give it up (`{delete}`), and call the same command"
    )


def slice_flags(job: Job) -> list[str]:
    """gcloud's flags for the kind of capacity, and for account, network and labels of the hosts."""
    return [
        *(["--spot"] if job.spot else []),
        *(["--reserved"] if job.reserved else []),
        *(["--internal-ips"] if job.internal_ips else []),
        *([f"--service-account={job.service_account}"] if job.service_account else []),
        *setup_commands.network_flags(job),
        *([f"--labels={','.join(job.labels)}"] if job.labels else []),
    ]
