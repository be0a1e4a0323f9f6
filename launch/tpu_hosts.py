"""What every host of TPU VMs runs, and how all of them are followed from the launching machine.

The container is detached from the connection: where that breaks, training goes on, and the same
command follows it again.
"""

import contextlib
import hashlib
import re
import subprocess
import threading
import time
from collections.abc import Collection, Sequence

from switch_jax.errors import UserError
from switch_jax.launch.commands import (
    Command,
    File,
    output_lines,
    run_command,
    shell_lines,
    start_process,
)
from switch_jax.launch.console import log
from switch_jax.launch.environment import environment
from switch_jax.launch.job import Job
from switch_jax.launch.retries import KILLED, UNREACHABLE, exit_code

# Seconds to save the state in, after SIGTERM.
SAVE_SECONDS = 600
# Seconds for the other hosts to end by themselves, once one has failed: JAX's heartbeat takes 100.
_FAILURE_GRACE = 180
# And after they were killed; one whose machine hangs does not even then.
_KILL_GRACE = 60

_SCRIPT = """\
#!/bin/bash
# Starts the job on one host, or follows it where it runs: bash {name}.sh SLICE
set -euo pipefail
{{ # Read to its end before it runs: the file is sent again while an earlier bash follows.
worker=$(curl --silent --fail --header 'Metadata-Flavor: Google' \\
  http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number \\
  || hostname)
trap 'echo "[$1 $worker] exit code $?"' EXIT
label='{{{{.Config.Labels.job}}}}'
job=$(sudo docker container inspect --format "$label" {name} 2> /dev/null || true)
lines=20
if [ -z "$job" ]; then
  lines=all
{login}  {run} > /dev/null
elif [ "$job" != {digest} ]; then
  echo "[$1 $worker] another job runs as {name}: end it first, or launch under another name"
  exit 2
fi
sudo docker logs --follow --tail "$lines" {name} 2>&1 | sed --unbuffered "s/^/[$1 $worker] /"
code=$(sudo docker wait {name})
exit "$code"
}}
"""
_EXIT = re.compile(r"\[(\S+ \S+)\] exit code (\d+)\s*")


def with_buckets(job: Job) -> tuple[str, ...]:
    """The container's command: with_gcs.sh mounts the buckets, then it trains."""
    return ("with_gcs", *job.buckets, "--", *job.command)


def script(job: Job) -> File:
    """What each host is sent."""
    registry = job.image.split("/")[0]
    login = f"  sudo gcloud auth configure-docker {registry} --quiet\n"
    ours = registry.endswith(("docker.pkg.dev", "gcr.io"))
    digest = hashlib.sha256(shell_lines(_container(job)).encode()).hexdigest()[:8]
    run = ("sudo", "docker", "run", f"--label=job={digest}", *_container(job))
    text = _SCRIPT.format(
        name=job.name, login=login if ours else "", run=shell_lines(run), digest=digest
    )
    return File(f"launched/{job.name}.sh", text, "what every host runs")


def _container(job: Job) -> tuple[str, ...]:
    return (
        "--detach",
        "--init",  # passes SIGTERM on; a first process would be deaf to it
        f"--name={job.name}",
        "--privileged",  # the TPU's devices, and FUSE
        "--net=host",
        *("--log-opt=max-size=100m", "--log-opt=max-file=3"),  # the disk is small
        f"--stop-timeout={SAVE_SECONDS}",
        "--volume=/var/cache/switch_jax:/var/cache/switch_jax",  # compiled programs
        *(f"--env={name}={value}" for name, value in environment(job.hardware).items()),
        job.image,
        *with_buckets(job),
    )


def copy_script(job: Job, node: str) -> Command:
    """Sends the script to all hosts of a slice."""
    argv = gcloud(job, "tpu-vm", "scp", f"launched/{job.name}.sh", f"{node}:", "--worker=all")
    return Command(argv, "the script, to all hosts")


def remove_stopped(job: Job, node: str) -> Command:
    """Removes what an attempt that has ended left on the hosts of a slice."""
    argv = _ssh(job, node, "sudo docker container prune --force")
    return Command(argv, "what an earlier attempt left is gone; a container that runs stays")


def follow(job: Job, node: str) -> Command:
    """Starts the job on all hosts of a slice, or follows it; ends when it ends."""
    argv = _ssh(job, node, f"bash {job.name}.sh {node}")
    return Command(argv, "starts the job on all hosts, or finds it there; prints what they print")


def kill(job: Job, node: str) -> Command:
    """Ends the job on all hosts of a slice, at once."""
    argv = _ssh(job, node, f"sudo docker kill {job.name}")
    return Command(
        argv, f"only where a host has failed and others still wait after {_FAILURE_GRACE} s"
    )


def stop(job: Job, node: str) -> Command:
    """Ends the job on all hosts of a slice, as a person may."""
    argv = _ssh(job, node, f"sudo docker stop {job.name}")
    return Command(argv, "not done here: ends the job with a checkpoint, after Ctrl-C here")


def _ssh(job: Job, node: str, command: str) -> tuple[str, ...]:
    # --batch-size: by default the 65th host waits until others have ended.
    words = ("--worker=all", "--batch-size=all", f"--command={command}")
    return gcloud(job, "tpu-vm", "ssh", node, *words)


def gcloud(job: Job, kind: str, verb: str, *words: str) -> tuple[str, ...]:
    """A command about a 'tpu-vm' or 'queued-resources', in the job's zone and project."""
    place = (f"--zone={job.zone}", f"--project={job.project}")
    return ("gcloud", "compute", "tpus", kind, verb, *words, *place)


def commands(job: Job, nodes: Sequence[str]) -> list[Command]:
    """All that `run` may do, in this order."""
    kinds = (copy_script, remove_stopped, follow, kill)
    return [kind(job, node) for kind in kinds for node in nodes]


def run(job: Job, nodes: Sequence[str]) -> int:
    """Starts the job on the hosts of all slices and follows it to its end.

    Args:
      job: what to run.
      nodes: names of the TPU VMs, one a slice.

    Returns:
      See `retries.exit_code`.

    Raises:
      UserError: there is no gcloud.
    """
    for node in nodes:
        for prepare in (copy_script(job, node), remove_stopped(job, node)):
            try:
                run_command(prepare)
            except UserError as error:  # the slice may be gone
                log(str(error))
                return UNREACHABLE
    codes: dict[str, int] = {}
    followed = [
        start_process(follow(job, n), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for n in nodes
    ]
    readers = [
        threading.Thread(target=_gather, args=(process, codes), daemon=True) for process in followed
    ]
    for reader in readers:
        reader.start()
    by_themselves = _end_together(job, nodes, codes, followed)
    for reader in readers:
        reader.join(_KILL_GRACE)
    failed = any([process.wait() for process in followed])
    silent = len(codes) < job.hardware.hosts
    counted = [code for host, code in codes.items() if host in by_themselves or code != KILLED]
    return exit_code([*counted, *([UNREACHABLE] if failed and silent else [])])


def _gather(process: "subprocess.Popen[str]", codes: dict[str, int]) -> None:
    for line in output_lines(process):
        print(line, end="", flush=True)
        ended = _EXIT.fullmatch(line)
        if ended:
            codes[ended.group(1)] = int(ended.group(2))


def _end_together(
    job: Job,
    nodes: Sequence[str],
    codes: dict[str, int],
    followed: "Sequence[subprocess.Popen[str]]",
) -> Collection[str]:
    """Waits for all; once a host has failed, the others have _FAILURE_GRACE seconds.

    Returns:
      The hosts that were not killed from here.
    """
    by_themselves: Collection[str] = codes
    deadline = float("inf")
    while any(process.poll() is None for process in followed):
        if any(codes.values()):
            deadline = min(deadline, time.monotonic() + _FAILURE_GRACE)
        if time.monotonic() > deadline:
            log("a host has failed and others have not ended: stopping them")
            by_themselves = set(codes)
            for node in nodes:
                with contextlib.suppress(UserError):  # hosts that have ended have none to stop
                    run_command(kill(job, node))
            break
        time.sleep(0.2)
    for process in followed:
        try:
            process.wait(_KILL_GRACE)
        except subprocess.TimeoutExpired:
            process.terminate()
    return by_themselves
