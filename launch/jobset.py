"""A JobSet (a Job a slice, a pod a host), followed with kubectl; the cluster restarts it."""

import contextlib
import dataclasses
import subprocess
import time
from typing import Annotated

from switch_jax.exit_codes import KILLED
from switch_jax.launch import google_cloud
from switch_jax.launch.commands import (
    Command,
    output_lines,
    output_with_retries,
    run_command,
    start_process,
)
from switch_jax.launch.console import log
from switch_jax.launch.restarts import exit_code
from switch_jax.launch.target import Flag
from switch_jax.utils.errors import UserError

CONTAINER = "train"
RESERVATION = "--reservation=RESERVATION"  # of gcloud and xpk; a person writes the name
END_WHY = "later, run it yourself: ends the job with a checkpoint, or deletes one that has ended"
_SPOT_RESTARTS = 100
_RESTARTS_OF_CLUSTER = 1000
_POLL_SECONDS = 10.0  # between two questions for the pods, until all of them run
_SETTLE_SECONDS = 1.0  # after the pods have ended, until the JobSet knows it


def escape_variables(text: str) -> str:
    """Escapes a text of a manifest, in which Kubernetes replaces $(NAME), and $$ by $."""
    return text.replace("$", "$$")


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobSetTarget(google_cloud.GoogleCloudTarget):
    """A JobSet on a cluster of GKE, as kubectl finds it."""

    cluster: Annotated[str, Flag("cluster of --on=gke and xpk", "NAME")]

    def __post_init__(self) -> None:
        super().__post_init__()
        generation = self.hardware.generation
        if generation.gke_accelerator is None:
            raise UserError(f"--on={self.on}: {generation.name} is not supported on GKE")

    @property
    def restarts(self) -> int:
        """Preemptions count too, where a pod is gone before it has saved."""
        return _SPOT_RESTARTS if self.spot and self.max_restarts is None else super().restarts

    @property
    def restarts_of_cluster(self) -> int:
        """The most restarts that Kubernetes allows, which counts those of the JobSet's life.

        More than enough, since `restart_limit` ends the job; but if no pod gets as far as that, the
        job ends too.
        """
        return max(_RESTARTS_OF_CLUSTER, self.restarts) if self.restarts else 0

    @property
    def command(self) -> tuple[str, ...]:
        if not self.restarts:
            return super().command
        program = ("python", "-m", "switch_jax.launch.restart_limit")
        return (*program, self.model_dir, str(self.restarts), "--", *super().command)

    @property
    def variables(self) -> dict[str, str]:
        """A pod's disk is gone after a restart: compiled programs are kept in MODEL_DIR."""
        return {
            "JAX_COMPILATION_CACHE_DIR": f"{self.model_dir.rstrip('/')}/compiled"
        } | super().variables

    @property
    def context(self) -> str | None:
        """The context of kubectl for the cluster of the job; None: the current one."""
        return None

    def kubectl(self, *words: str) -> tuple[str, ...]:
        return ("kubectl", *words, *((f"--context={self.context}",) if self.context else ()))

    @property
    def queries(self) -> dict[str, Command]:
        """The commands of `follow` by what they find, in the order of a dry run."""
        pods = f"--selector=jobset.sigs.k8s.io/jobset-name={self.job_name}"
        get_pods = self.kubectl("get", "pods", pods)
        running = ("--field-selector=status.phase=Running", "--output=name")
        exit_codes = "{.items[*].status.containerStatuses[*].state.terminated.exitCode}"
        state = ("--ignore-not-found", "--output=jsonpath={.kind} {.status.terminalState}")
        logs = (
            *self.kubectl("logs", pods, f"--container={CONTAINER}"),
            *("--prefix", "--ignore-errors", f"--max-log-requests={max(5, self.hardware.hosts)}"),
        )
        return {
            "running_pods": Command(
                (*get_pods, *running), f"repeated every {_POLL_SECONDS:.0f} s until all pods run"
            ),
            "logs": Command(
                (*logs, "--follow", "--tail=-1"),
                "prints the output of all hosts; with --since-time=LAST_LINE after a lost "
                "connection",
            ),
            "state": Command(
                (*self.kubectl("get", "jobset", self.job_name), *state),
                "prints JobSet if it exists, and Completed or Failed if it has ended",
            ),
            "exit_codes": Command(
                (*get_pods, f"--output=jsonpath={exit_codes}"),
                "only if it has failed: the exit codes",
            ),
            "last_lines": Command((*logs, "--tail=20"), "only if it has failed: the last lines"),
        }

    def follow(self) -> int:
        """Prints what the pods print until the JobSet ends; returns its `restarts.exit_code`."""
        running_before, last_line = None, None
        while not (state := self._final_state()):
            running = len(output_with_retries(self.queries["running_pods"]).split())
            if running < self.hardware.hosts:
                if running != running_before:
                    log(f"{self.job_name}: {running} of {self.hardware.hosts} pods run")
                running_before = running
                time.sleep(_POLL_SECONDS)
                continue
            last_line = self._print_logs(last_line)
            time.sleep(_SETTLE_SECONDS)
        log(f"{self.job_name}: {state}")
        if state == "Completed":
            return 0
        codes = [int(code) for code in output_with_retries(self.queries["exit_codes"]).split()]
        with contextlib.suppress(UserError):
            run_command(self.queries["last_lines"])
        # After a failure the cluster ends the other pods, and kills those that do not react.
        return exit_code([code for code in codes if code != KILLED] or codes) or 1

    def _final_state(self) -> str:
        """'Completed' or 'Failed'; "" if the JobSet has not ended."""
        found, _, state = output_with_retries(self.queries["state"]).partition(" ")
        if not found:
            raise UserError(f"the JobSet {self.job_name} is gone: somebody has deleted it")
        return state

    def _print_logs(self, last_line: str | None) -> str | None:
        """Prints what the pods print after the time `last_line`, until the connection breaks.

        Returns when the last line came, as Kubernetes writes a time.
        """
        since = (f"--since-time={last_line}",) if last_line else ()
        logs = self.queries["logs"]
        logs = dataclasses.replace(logs, argv=(*logs.argv, *since))
        with start_process(logs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            for line in output_lines(process):
                print(line, end="", flush=True)
                # Not kubectl's errors, which come after a break: lines in between would be lost.
                if line.startswith("[pod/"):
                    last_line = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return last_line
