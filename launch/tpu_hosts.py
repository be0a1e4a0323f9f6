"""The script that every host of a TPU VM runs, and the commands that run it on all of them.

If the connection breaks, training goes on, and the same command follows it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import subprocess
import threading
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from switch_jax.exit_codes import KILLED, UNREACHABLE
from switch_jax.launch.commands import (
    Command,
    File,
    output_lines,
    run_command,
    shell_lines,
    start_process,
)
from switch_jax.launch.console import log
from switch_jax.launch.google_cloud import GoogleCloudTarget
from switch_jax.launch.restarts import exit_code
from switch_jax.utils.errors import UserError

if TYPE_CHECKING:  # it imports this module
    from switch_jax.launch.tpu_slices import TpuSlicesTarget

# Seconds to save the state, between SIGTERM and SIGKILL.
SAVE_SECONDS = 600
# Seconds for the other hosts to end by themselves after one has failed. JAX's heartbeat takes 100.
FAILURE_GRACE = 180
# Seconds for them to end after they were killed. A host that hangs does not end even then.
_KILL_GRACE = 60
_LABEL = "switch_jax_job"  # of the containers, so that no other program's are removed
_OTHER_JOB = 99  # the script's exit code where another job runs on the host; no job ends with it

_SCRIPT = """\
#!/bin/bash
# Starts the job on one host, or follows it if it already runs: bash {name}.sh SLICE
set -euo pipefail
{{ # bash reads up to the last brace before it runs this: the file may be replaced meanwhile.
worker=$(curl --silent --fail --header 'Metadata-Flavor: Google' \\
  http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number \\
  || hostname)
trap 'echo "[$1 $worker] exit code $?"' EXIT
label='{{{{.Config.Labels.{label}}}}}'
job=$(sudo docker container inspect --format "$label" {name} 2> /dev/null || true)
lines=20
if [ -z "$job" ]; then
  lines=all
{login}  {run} > /dev/null
elif [ "$job" != {digest} ]; then
  echo "[$1 $worker] another job runs as {name}"
  exit {other_job}
fi
sudo docker logs --follow --tail "$lines" {name} 2>&1 | sed --unbuffered "s/^/[$1 $worker] /"
code=$(sudo docker wait {name})
exit "$code"
}}
"""
_EXIT = re.compile(r"\[(\S+ \S+)\] exit code (\d+)\s*")


def container_command(job: GoogleCloudTarget) -> tuple[str, ...]:
    """The command of a container: with_secrets.py reads the secrets, and runs the job's command."""
    secrets = ("with_secrets", job.project, *job.secret, "--") if job.secret else ()
    return (*secrets, *job.command)


def script(job: TpuSlicesTarget) -> File:
    """The file `launched/JOB_NAME.sh`, which all hosts get."""
    registry = job.image.split("/")[0]
    login = f"  sudo gcloud auth configure-docker {registry} --quiet\n"
    google = registry.endswith(("docker.pkg.dev", "gcr.io"))
    digest = hashlib.sha256(shell_lines(_container(job)).encode()).hexdigest()[:8]
    run = ("sudo", "docker", "run", f"--label={_LABEL}={digest}", *_container(job))
    text = _SCRIPT.format(
        name=job.job_name,
        login=login if google else "",
        run=shell_lines(run),
        digest=digest,
        label=_LABEL,
        other_job=_OTHER_JOB,
    )
    return File(f"launched/{job.job_name}.sh", text, "the script that every host runs")


def _container(job: TpuSlicesTarget) -> tuple[str, ...]:
    return (
        "--detach",
        "--init",  # passes SIGTERM on; the trainer as process 1 would ignore it
        f"--name={job.job_name}",
        "--privileged",  # for the TPU's devices
        "--net=host",
        *("--log-opt=max-size=100m", "--log-opt=max-file=3"),  # the disk is small
        f"--stop-timeout={SAVE_SECONDS}",
        "--volume=/var/cache/switch_jax:/var/cache/switch_jax",  # compiled programs
        *(f"--env={name}={value}" for name, value in job.variables.items()),
        job.image,
        *container_command(job),
    )


def host_commands(job: TpuSlicesTarget, node: str) -> dict[str, Command]:
    """Commands for all hosts of a slice, by what they do; a person runs the last one."""

    def ssh(command: str, why: str) -> Command:
        words = (node, "--worker=all", "--batch-size=all", f"--command={command}")
        return Command(_remote(job, "ssh", *words), why)

    name, later = job.job_name, "later, run it yourself: "
    copy = _remote(job, "scp", f"launched/{name}.sh", f"{node}:", "--worker=all")
    return {
        "copy": Command(copy, "copies the script to all hosts"),
        "prune": ssh(
            f"sudo docker container prune --force --filter=label={_LABEL}",
            "removes the containers of earlier attempts, but no other program's, nor one that runs",
        ),
        "follow": ssh(
            f"bash {name}.sh {node}",
            "starts the job on all hosts, or follows it if it already runs",
        ),
        "kill": ssh(
            f"sudo docker kill {name}",
            f"only if a host has failed and others still run after {FAILURE_GRACE} s",
        ),
        "stop": ssh(
            f"sudo docker stop {name}",
            f"{later}ends the job with a checkpoint; press Ctrl-C here first",
        ),
    }


def _remote(job: TpuSlicesTarget, verb: str, *words: str) -> tuple[str, ...]:
    # Of gcloud alpha: the other one has no --batch-size, without which hosts may wait for each
    # other, and no --tunnel-through-iap.
    tunnel = ("--tunnel-through-iap",) if job.internal_ips else ()
    program, *argv = gcloud(job, "tpu-vm", verb, *words, *tunnel)
    return (program, "alpha", *argv)


def gcloud(job: TpuSlicesTarget, resource: str, verb: str, *words: str) -> tuple[str, ...]:
    """A command of gcloud for a 'tpu-vm' or 'queued-resources', in the job's zone and project."""
    location = (f"--zone={job.zone}", f"--project={job.project}")
    return ("gcloud", "compute", "tpus", resource, verb, *words, *location)


def commands(job: TpuSlicesTarget) -> list[Command]:
    by_node = [host_commands(job, node) for node in job.nodes]
    return [node[name] for name in ("copy", "prune", "follow", "kill") for node in by_node]


def run(job: TpuSlicesTarget) -> int:
    """Starts the job on the hosts of all slices, and follows it to its `restarts.exit_code`.

    UserError where another job runs there.
    """
    by_node = [host_commands(job, node) for node in job.nodes]
    try:
        for node in by_node:
            run_command(node["copy"])
            run_command(node["prune"])
    except UserError as error:  # the slice may be gone
        log(str(error))
        return UNREACHABLE
    codes: dict[str, int] = {}
    followed = [
        start_process(node["follow"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for node in by_node
    ]
    readers = [
        threading.Thread(target=_print_output, args=(process, codes), daemon=True)
        for process in followed
    ]
    for reader in readers:
        reader.start()
    not_killed = _wait(job, codes, followed)
    for reader in readers:
        reader.join(_KILL_GRACE)
    failed = any([process.wait() for process in followed])
    if _OTHER_JOB in codes.values():
        raise UserError(
            f"another job runs as {job.job_name}: end it first, or launch under another name"
        )
    silent = len(codes) < job.hardware.hosts
    counted = [code for host, code in codes.items() if host in not_killed or code != KILLED]
    return exit_code([*counted, *([UNREACHABLE] if failed and silent else [])])


def _print_output(process: subprocess.Popen[str], codes: dict[str, int]) -> None:
    """Prints what the hosts of a slice print, and collects their exit codes by their names."""
    for line in output_lines(process):
        print(line, end="", flush=True)
        if ended := _EXIT.fullmatch(line):
            codes[ended[1]] = int(ended[2])


def _wait(
    job: TpuSlicesTarget, codes: dict[str, int], followed: Sequence[subprocess.Popen[str]]
) -> Collection[str]:
    """Waits for all; kills them FAILURE_GRACE seconds after a failure. Returns those not killed."""
    not_killed: Collection[str] = codes
    deadline = float("inf")
    while any(process.poll() is None for process in followed):
        if any(codes.values()):
            deadline = min(deadline, time.monotonic() + FAILURE_GRACE)
        if time.monotonic() > deadline:
            log("a host has failed and others have not ended: stopping them")
            not_killed = set(codes)
            for node in job.nodes:
                # Hosts that have ended have no container to kill.
                with contextlib.suppress(UserError):
                    run_command(host_commands(job, node)["kill"])
            break
        time.sleep(0.2)
    for process in followed:
        try:
            process.wait(_KILL_GRACE)
        except subprocess.TimeoutExpired:
            process.terminate()
    return not_killed
