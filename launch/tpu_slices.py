"""Slices of TPU VMs: created or waited for, and created again if they are taken away."""

import abc
import dataclasses
import time
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from switch_jax.exit_codes import DONE, FAILED, PREEMPTED
from switch_jax.launch import google_cloud, tpu_hosts
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
from switch_jax.launch.google_cloud import ServiceAccount
from switch_jax.launch.restarts import FINAL, supervise
from switch_jax.launch.target import Flag
from switch_jax.run_folder import RunFolder
from switch_jax.utils.errors import UserError

POLL_SECONDS = 30.0  # between two looks at the slices' state
_RETRY_SECONDS = 300.0  # before slices are requested again, if there was no capacity
_NOT_FOUND = "NOT_FOUND"  # gcloud's word for what does not exist
_FAILED = "FAILED"
_STUCK = ("STOPPED", "HIDDEN")  # waiting does not make these ready


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuSlicesTarget(google_cloud.GoogleCloudTarget):
    """Slices of TPU VMs. This machine starts the job on them by ssh.

    Attributes:
      resource: what gcloud calls them.
      state: of the slices, in gcloud's description.
      ready: the state of slices that can be used.
      gone: the states of slices that were taken away and have to be created again.
      delete_flags: with which gcloud asks nothing.
      when_querying, when_creating, when_deleting, give_back: the comments above these commands.
    """

    resource: ClassVar[str]
    state: ClassVar[str]
    ready: ClassVar[str]
    gone: ClassVar[Sequence[str]]
    delete_flags: ClassVar[Sequence[str]]
    when_querying: ClassVar[str]
    when_creating: ClassVar[str]
    when_deleting: ClassVar[str]
    give_back: ClassVar[str]

    service_account: ServiceAccount = None
    network: Annotated[str | None, Flag("network of TPU VMs (default: default)", "NAME")] = None
    subnetwork: Annotated[str | None, Flag("subnetwork of TPU VMs", "NAME")] = None
    internal_ips: Annotated[bool, Flag("TPU VMs without addresses on the internet")] = False
    release: Annotated[
        Literal["never", "done", "always"],
        Flag("delete the slices of TPU VMs at the end: never (default), after exit code 0, always"),
    ] = "never"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hardware.generation.runtime is None:
            raise UserError(
                f"--on={self.on}: Google Cloud offers {self.hardware.generation.name} on GKE only"
            )
        google_cloud.check_usual_shape(self.hardware)

    @property
    @abc.abstractmethod
    def slice_flags(self) -> Sequence[str]:
        """gcloud's flags for what is created: names, accelerator type and software."""

    @property
    def nodes(self) -> list[str]:
        """Names of the TPU VMs, one for each slice."""
        count = self.hardware.count
        return [self.job_name] if count == 1 else [f"{self.job_name}-{i}" for i in range(count)]

    @property
    def query_state(self) -> Command:
        why = f"repeated every {POLL_SECONDS:.0f} s until {self.when_querying}"
        return self._gcloud("describe", why, f"--format=value({self.state})")

    @property
    def create(self) -> Command:
        given = {
            "--spot": self.spot,
            "--reserved": self.reserved,
            "--internal-ips": self.internal_ips,
            "--service-account": self.service_account,
            "--network": self.network,
            "--subnetwork": self.subnetwork,
        }
        flags = (name if x is True else f"{name}={x}" for name, x in given.items() if x)
        return self._gcloud("create", self.when_creating, *self.slice_flags, *flags)

    @property
    def delete(self) -> Command:
        """Gives the slices back, or clears away what a preemption has left of them."""
        return self._gcloud("delete", self.when_deleting, *self.delete_flags)

    def _gcloud(self, verb: str, why: str, *flags: str) -> Command:
        return Command((*tpu_hosts.gcloud(self, self.resource, verb, self.job_name), *flags), why)

    def commands(self) -> list[Step]:
        slices = self.query_state, self.delete, self.create
        release = [] if self.release == "never" else [self._release]
        return [tpu_hosts.script(self), *slices, *tpu_hosts.commands(self), *release]

    def cleanup_commands(self) -> list[Command]:
        stops = [tpu_hosts.host_commands(self, node)["stop"] for node in self.nodes]
        why = f"later, run it yourself: {self.give_back}"
        return [*stops, dataclasses.replace(self.delete, why=why)]

    def run(self) -> int:
        """Runs the job as other targets do; then deletes the slices, if `release` says so."""
        try:
            code = super().run()
        except (KeyboardInterrupt, UserError):
            if self.release != "never":
                log(f"--release={self.release} deletes nothing: the end of the job was not seen")
            raise
        if self.release == "always" or (self.release == "done" and code == DONE):
            return self._delete_after(code)
        return code

    @property
    def _release(self) -> Command:
        when = "after exit code 0" if self.release == "done" else "when the job has ended"
        return dataclasses.replace(self.delete, why=f"{when}: gives the chips back")

    def _delete_after(self, code: int) -> int:
        """Deletes the slices of a job that has ended with the code; the code, or 1 for 0."""
        log(f"{self.job_name} has ended with exit code {code}: `{shell_line(self._release.argv)}`")
        try:
            output_with_retries(self._release, _NOT_FOUND)
        except UserError as error:
            log(f"the slices may still be there, and cost money: {error}")
            return code or FAILED
        log(f"{self.job_name}: the slices are deleted; {self.model_dir} stays")
        return code

    def start_and_follow(self) -> int:
        """Creates the slices if needed, and runs the job until it is done or has to stop."""
        # Without retries: an account that may not ask for the state is an error at once.
        had_slices = output(self.query_state, _NOT_FOUND) in (self.ready, *self.gone)

        def attempt() -> int:
            nonlocal had_slices
            self._wait_until_ready(had_slices)
            had_slices = True
            code = tpu_hosts.run(self)
            return PREEMPTED if code not in FINAL and self._state() != self.ready else code

        write_file(tpu_hosts.script(self))
        return supervise(attempt, self.restarts, RunFolder.at(self.model_dir))

    def _state(self) -> str:
        """Returns the state of the slices; "" if they do not exist."""
        return output_with_retries(self.query_state, _NOT_FOUND)

    def _wait_until_ready(self, had_slices: bool) -> None:
        """Waits until the slices can be used, and creates them if they do not exist.

        If there were slices before, a refusal only means that there is no capacity at the moment.
        """
        asked, logged = False, None
        place, give_up = f"{self.topology} in {self.zone}", shell_line(self.delete.argv)
        try:
            while (now := self._state()) != self.ready:
                if now != logged:
                    log(f"{place}: {now or 'not there'}")
                    logged = now
                if now in _STUCK or (now == _FAILED and asked and not had_slices):
                    raise UserError(
                        f"{self.job_name}, {place}, is {now}: it will not be {self.ready} by "
                        f"itself (`{give_up}` gives it up)"
                    )
                if now == _FAILED or now in self.gone:
                    output_with_retries(self.delete, _NOT_FOUND)
                elif now:
                    time.sleep(POLL_SECONDS)
                else:
                    if asked:
                        time.sleep(_RETRY_SECONDS)
                    self._create(had_slices)
                    asked = True
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"goes on waiting for its slices ({logged or 'not there'}); `{give_up}` gives them "
                "up"
            ) from None

    def _create(self, had_slices: bool) -> None:
        try:
            run_command(self.create)
        except UserError as error:
            if not had_slices:
                raise
            log(f"{error}; asking again in {_RETRY_SECONDS:.0f} s")
