"""A JobSet on GKE: one Job a slice, one pod a host, and the cluster itself starts it again.

GKE tells the pods of a Job, and the Jobs of a JobSet, who their peers are (TPU_WORKER_HOSTNAMES,
TPU_WORKER_ID, MEGASCALE_*), which is where `jax.distributed.initialize` looks.
"""

import contextlib
import dataclasses
import re
import subprocess
import time
from typing import Any

import yaml

from switch_jax.errors import UserError
from switch_jax.launch import setup_commands
from switch_jax.launch.commands import (
    Command,
    File,
    Step,
    output,
    output_lines,
    output_with_retries,
    run_command,
    start_process,
    write_file,
)
from switch_jax.launch.console import log
from switch_jax.launch.environment import environment
from switch_jax.launch.job import Job
from switch_jax.launch.retries import FINAL, KILLED, PREEMPTED, exit_code
from switch_jax.launch.tpu_hosts import SAVE_SECONDS

_POLL_SECONDS = 10.0  # seconds between looks at pods that wait
_SETTLE_SECONDS = 1.0  # seconds until a JobSet knows of its pods' end
_STOP = [code for code in FINAL if code]
_MOUNT_OPTIONS = "implicit-dirs,rename-dir-limit=200000"  # as in with_gcs.sh
CONTAINER = "train"
ENDS = "not done here: ends the job with a checkpoint, or clears away one that is over"


def steps(job: Job) -> list[Step]:
    """All that `run` does, in this order."""
    return [_file(job), _credentials(job), _apply(job), *looks(job)]


def afterwards(job: Job) -> list[Command]:
    """How to end the job, and to stop paying."""
    ended = Command(_kubectl(job, "delete", "jobset", job.name), ENDS)
    delete, flags = (
        ("gcloud", "container", "node-pools", "delete"),
        (*setup_commands.place(job), "--quiet"),
    )
    pools = [
        (*delete, n, f"--cluster={job.cluster}", *flags) for n in setup_commands.node_pools(job)
    ]
    return [ended, *(Command(argv, "not done here: gives a slice back") for argv in pools)]


def run(job: Job) -> int:
    """Applies the manifest, and prints what the pods print until the JobSet is over.

    The cluster starts the job again by itself, and goes on where this is interrupted.

    Returns:
      The exit code of `switch_jax train`.

    Raises:
      UserError: the cluster refuses it, or there is no gcloud or kubectl.
    """
    write_file(_file(job))
    run_command(_credentials(job))
    run_command(_apply(job))
    return follow(job)


def follow(job: Job) -> int:
    """Prints what the pods of a JobSet print until it is over; returns the trainer's exit code."""
    running, logs, over, codes, last = looks(job)
    told, since = None, None
    while not (state := _state(job, over)):
        ready = len(output_with_retries(running).split())
        if ready < job.hardware.hosts:
            if ready != told:
                log(f"{job.name}: {ready} of {job.hardware.hosts} pods run")
            told = ready
            time.sleep(_POLL_SECONDS)
            continue
        since = _print(logs, since)
        time.sleep(_SETTLE_SECONDS)
    log(f"{job.name}: {state}")
    if state == "Completed":
        return 0
    ended = [int(code) for code in output_with_retries(codes).split()]
    with contextlib.suppress(UserError):
        run_command(last)
    # Pods that the cluster ends with the one that failed are killed where they are deaf.
    return exit_code([code for code in ended if code != KILLED] or ended) or 1


def found(job: Job) -> bool:
    """Whether the JobSet is there, over or not."""
    return bool(output(_over(job)))


def _state(job: Job, over: Command) -> str:
    """Completed, Failed, or "" of a JobSet that is not over."""
    kind, _, state = output_with_retries(over).partition(" ")
    if not kind:
        raise UserError(f"the JobSet {job.name} is gone: somebody has deleted it")
    return state


def _print(logs: Command, since: str | None) -> str | None:
    """Prints what the pods print until they end or the connection breaks.

    Args:
      logs: follows the pods.
      since: when the last line came that was printed already.

    Returns:
      When the last line came, as Kubernetes writes a time.
    """
    argv = (*logs.argv, *([f"--since-time={since}"] if since else []))
    command = dataclasses.replace(logs, argv=argv)
    with start_process(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        for line in output_lines(process):
            print(line, end="", flush=True)
            if line.startswith("[pod/"):  # kubectl's own come later than what was lost
                since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return since


def manifest(job: Job) -> dict[str, Any]:
    """The JobSet (jobset.x-k8s.io/v1alpha2, JobSet 0.10 and later).

    A container's exit code decides as elsewhere: 2, 3 and 130 fail the JobSet; 75, and on spot
    nodes a pod that its node had to give up, start it again without counting; any other counts as
    a restart.
    """
    rules: list[dict[str, Any]] = [
        {
            "name": "stop",
            "action": "FailJobSet",
            "onJobFailureReasons": ["PodFailurePolicy"],
            "onJobFailureMessagePatterns": [f"exit code ({'|'.join(map(str, _STOP))}) "],
        },
        {
            "name": "preempted",
            "action": "RestartJobSetAndIgnoreMaxRestarts",
            "onJobFailureReasons": ["PodFailurePolicy"],
        },
    ]
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": _metadata(job),
        "spec": {
            "failurePolicy": {"maxRestarts": job.max_restarts, "rules": rules},
            "replicatedJobs": [
                {"name": "slice", "replicas": job.hardware.count, "template": {"spec": _slice(job)}}
            ],
        },
    }


def _metadata(job: Job) -> dict[str, Any]:
    if job.hardware.hosts_per_slice == 1:
        return {"name": job.name}
    # A slice of several hosts is a node pool: no Job may be spread over two.
    one_pool = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
    return {"name": job.name, "annotations": one_pool}


def _slice(job: Job) -> dict[str, Any]:
    """The Job of one slice; any failure of a pod ends it, since no host goes on without another."""
    hosts = job.hardware.hosts_per_slice
    by_code = {"containerName": CONTAINER, "operator": "In"}
    rules: list[dict[str, Any]] = [
        {"action": "FailJob", "onExitCodes": {**by_code, "values": sorted(_STOP)}},
        {"action": "FailJob", "onExitCodes": {**by_code, "values": [PREEMPTED]}},
    ]
    if job.spot:
        # The kubelet sets it too where a pod takes too much memory or disk, and that would start
        # again for ever: the lesser evil only where nodes go without the time to save.
        disrupted = {"type": "DisruptionTarget", "status": "True"}
        rules.append({"action": "FailJob", "onPodConditions": [disrupted]})
    return {
        "parallelism": hosts,
        "completions": hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": rules},
        "template": _pod(job),
    }


def _pod(job: Job) -> dict[str, Any]:
    cloud, hardware = job.hardware.generation.cloud, job.hardware
    select = {
        "cloud.google.com/gke-tpu-accelerator": cloud.gke_accelerator,
        "cloud.google.com/gke-tpu-topology": hardware.topology,
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": SAVE_SECONDS,
        # Or the trainer would be process 1, which a SIGTERM passes by until there is a handler.
        "shareProcessNamespace": True,
        "nodeSelector": select,
        "containers": [_container(job)],
    }
    if job.spot:
        select["cloud.google.com/gke-spot"] = "true"
        spec["tolerations"] = [
            {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true"}
        ]
    if job.service_account:
        spec["serviceAccountName"] = job.service_account
    if not job.buckets:
        return {"spec": spec}
    spec["volumes"] = [
        {
            "name": f"bucket-{i}",
            "csi": {
                "driver": "gcsfuse.csi.storage.gke.io",
                "volumeAttributes": {"bucketName": bucket, "mountOptions": _MOUNT_OPTIONS},
            },
        }
        for i, bucket in enumerate(job.buckets)
    ]
    # "0": no limit. A checkpoint passes through the mount's side-car.
    limits = {f"gke-gcsfuse/{what}-limit": "0" for what in ("cpu", "memory", "ephemeral-storage")}
    return {"metadata": {"annotations": {"gke-gcsfuse/volumes": "true"} | limits}, "spec": spec}


def _container(job: Job) -> dict[str, Any]:
    chips = {"google.com/tpu": str(job.hardware.chips_per_host)}
    variables = environment(job.hardware).items()
    return {
        "name": CONTAINER,
        "image": job.image,
        "command": [literal(word) for word in job.command],
        "env": [{"name": name, "value": literal(value)} for name, value in variables],
        "resources": {"limits": chips},  # requests are the same
        "volumeMounts": [
            {"name": f"bucket-{i}", "mountPath": f"/gcs/{bucket}"}
            for i, bucket in enumerate(job.buckets)
        ],
    }


def literal(text: str) -> str:
    """The text as a manifest's command or variable holds it, so that a pod gets it as it is.

    Kubernetes writes a variable's value for $(NAME) there, and $ for $$.
    """
    return text.replace("$", "$$")


class _Dumper(yaml.SafeDumper):
    """Quotes also the strings that kubectl's YAML takes for numbers or truth values."""


for _kind, _pattern, _first in (
    ("float", r"\d+(\.\d*)?e[-+]?\d+", "0123456789"),
    ("int", r"0o[0-7]+", "0"),
    ("bool", r"[yYnN]", "yYnN"),
):
    _Dumper.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})$", re.IGNORECASE), list(_first)
    )


def _file(job: Job) -> File:
    text = yaml.dump(manifest(job), Dumper=_Dumper, sort_keys=False, width=1000)
    return File(f"launched/{job.name}.yaml", text, "the JobSet")


def _credentials(job: Job) -> Command:
    connect = ("gcloud", "container", "clusters", "get-credentials", str(job.cluster))
    argv = (*connect, *setup_commands.place(job))
    return Command(argv, "kubectl comes to know the cluster")


def _apply(job: Job) -> Command:
    argv = _kubectl(job, "apply", f"--filename=launched/{job.name}.yaml")
    return Command(argv, "starts the job, or finds it as it is")


def looks(job: Job) -> tuple[Command, Command, Command, Command, Command]:
    """What asks after the job: do pods run, what do they print, is it over, why and with what."""
    of_job = f"--selector=jobset.sigs.k8s.io/jobset-name={job.name}"
    pods = _kubectl(job, "get", "pods", of_job)
    running = (*pods, "--field-selector=status.phase=Running", "--output=name")
    logs = (
        *_kubectl(job, "logs", of_job, f"--container={CONTAINER}"),
        *("--prefix", "--ignore-errors", f"--max-log-requests={max(5, job.hardware.hosts)}"),
    )
    exit_codes = "{.items[*].status.containerStatuses[*].state.terminated.exitCode}"
    return (
        Command(running, f"asked every {_POLL_SECONDS:.0f} s until all pods run"),
        Command(
            (*logs, "--follow", "--tail=-1"),
            "what all hosts print; --since-time=LAST_LINE where it broke off",
        ),
        _over(job),
        Command((*pods, f"--output=jsonpath={exit_codes}"), "only where it failed: the exit codes"),
        Command((*logs, "--tail=20"), "only where it failed: the last lines"),
    )


def _over(job: Job) -> Command:
    form = ("--ignore-not-found", "--output=jsonpath={.kind} {.status.terminalState}")
    argv = (*_kubectl(job, "get", "jobset", job.name), *form)
    return Command(argv, "JobSet: it is there; and Completed or Failed: it is over")


def _kubectl(job: Job, *words: str) -> tuple[str, ...]:
    if job.on == "xpk":  # it knows where its cluster is, and has told kubectl
        return ("kubectl", *words)
    return ("kubectl", *words, f"--context=gke_{job.project}_{job.zone}_{job.cluster}")
