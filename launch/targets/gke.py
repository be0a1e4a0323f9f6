"""A JobSet on a cluster of GKE, whose variables tell `jax.distributed.initialize` of all pods."""

import dataclasses
import re
from typing import Any

import yaml

from switch_jax.exit_codes import PREEMPTED
from switch_jax.launch import setup_commands
from switch_jax.launch.commands import Command, File, Step, run_command, write_file
from switch_jax.launch.google_cloud import ServiceAccount
from switch_jax.launch.jobset import CONTAINER, END_WHY, RESERVATION, JobSetTarget, escape_variables
from switch_jax.launch.restarts import FINAL
from switch_jax.launch.tpu_hosts import SAVE_SECONDS

_STOP = [code for code in FINAL if code]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gke(JobSetTarget):
    """A JobSet that kubectl applies."""

    on = "gke"

    service_account: ServiceAccount = None

    @property
    def context(self) -> str:
        return f"gke_{self.project}_{self.zone}_{self.cluster}"

    def store_secrets(self) -> list[Command]:
        """Commands that make the cluster kubectl's, and store the secrets there."""
        connect = setup_commands.one_time(_get_credentials(self).argv, "make it kubectl's cluster")
        create = "kubectl create secret generic"
        stores = {
            name: f"{create} {_secret(name)} --from-file={name}=/dev/stdin" for name in self.secret
        }
        secrets = [setup_commands.store_secret(name, store) for name, store in stores.items()]
        return [connect, *secrets] if secrets else []

    def create_nodes(self) -> list[Command]:
        return [_create_node_pool(self, name) for name in _node_pools(self)]

    def commands(self) -> list[Step]:
        return [_file(self), _get_credentials(self), self._apply(), *self.queries.values()]

    def cleanup_commands(self) -> list[Command]:
        delete = ("gcloud", "container", "node-pools", "delete")
        flags = (f"--cluster={self.cluster}", *_location(self), "--quiet")
        why = "later, run it yourself: gives a slice back"
        return [
            Command(self.kubectl("delete", "jobset", self.job_name), END_WHY),
            *(Command((*delete, name, *flags), why) for name in _node_pools(self)),
        ]

    def start_and_follow(self) -> int:
        """Applies the manifest, prints the pods' output; UserError where the cluster refuses it."""
        write_file(_file(self))
        run_command(_get_credentials(self))
        run_command(self._apply())
        return self.follow()

    def _apply(self) -> Command:
        argv = self.kubectl("apply", f"--filename=launched/{self.job_name}.yaml")
        return Command(argv, "starts the job, or changes nothing if it already runs")


def _location(job: Gke) -> tuple[str, str]:
    return (f"--location={job.zone}", f"--project={job.project}")


def _node_pools(job: Gke) -> list[str]:
    """Names of the node pools, one a slice."""
    return [f"{job.job_name}-{i}" for i in range(job.hardware.count)]


def _create_node_pool(job: Gke, name: str) -> Command:
    hardware = job.hardware
    several_hosts = hardware.hosts_per_slice > 1
    argv = (
        *("gcloud", "container", "node-pools", "create", name),
        f"--cluster={job.cluster}",
        *_location(job),
        f"--machine-type={hardware.generation.gke_machine}-{hardware.chips_per_host}t",
        *((f"--tpu-topology={hardware.topology}",) if several_hosts else ()),
        f"--num-nodes={hardware.hosts_per_slice}",
        *(("--spot",) if job.spot else ()),
        *(("--reservation-affinity=specific", RESERVATION) if job.reserved else ()),
    )
    name_it = "; RESERVATION is the name of yours" if job.reserved else ""
    return setup_commands.one_time(
        argv, f"create the nodes of a slice, which cost money from now on{name_it}"
    )


def _get_credentials(job: Gke) -> Command:
    connect = ("gcloud", "container", "clusters", "get-credentials", job.cluster)
    return Command((*connect, *_location(job)), "gives kubectl access to the cluster")


def manifest(job: Gke) -> dict[str, Any]:
    """The JobSet (jobset.x-k8s.io/v1alpha2, JobSet 0.10 and later).

    The exit code of a container decides, as on other targets: 2, 3 and 130 fail the JobSet; 75
    starts it again without counting, and so does a pod that a spot node had to give up; any other
    code counts as a restart.
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
            "failurePolicy": {"maxRestarts": job.restarts, "rules": rules},
            "replicatedJobs": [
                {"name": "slice", "replicas": job.hardware.count, "template": {"spec": _slice(job)}}
            ],
        },
    }


def _metadata(job: Gke) -> dict[str, Any]:
    if job.hardware.hosts_per_slice == 1:
        return {"name": job.job_name}
    # A slice of several hosts is a node pool: all pods of a Job have to be in the same one.
    one_pool = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
    return {"name": job.job_name, "annotations": one_pool}


def _secret(name: str) -> str:
    """The name in Kubernetes of a variable's secret, whose key is the variable's name."""
    return name.lower().replace("_", "-")


def _slice(job: Gke) -> dict[str, Any]:
    """The Job of one slice. Any failure of a pod ends it, since no host can go on alone."""
    hosts = job.hardware.hosts_per_slice
    by_code = {"containerName": CONTAINER, "operator": "In"}
    rules: list[dict[str, Any]] = [
        {"action": "FailJob", "onExitCodes": {**by_code, "values": sorted(_STOP)}},
        {"action": "FailJob", "onExitCodes": {**by_code, "values": [PREEMPTED]}},
    ]
    if job.spot:
        # The kubelet also sets this condition for a pod that takes too much memory or disk, which
        # would then start again for ever. That is acceptable on spot nodes alone, which are taken
        # away before a pod can save.
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


def _pod(job: Gke) -> dict[str, Any]:
    hardware = job.hardware
    select = {
        "cloud.google.com/gke-tpu-accelerator": hardware.generation.gke_accelerator,
        "cloud.google.com/gke-tpu-topology": hardware.topology,
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": SAVE_SECONDS,
        # Else the trainer would be process 1, which ignores SIGTERM until it has a handler.
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
    return {"spec": spec}


def _container(job: Gke) -> dict[str, Any]:
    chips = {"google.com/tpu": str(job.hardware.chips_per_host)}
    env: list[dict[str, Any]] = [
        {"name": name, "value": escape_variables(value)} for name, value in job.variables.items()
    ]
    for name in job.secret:
        key = {"secretKeyRef": {"name": _secret(name), "key": name}}
        env.append({"name": name, "valueFrom": key})
    return {
        "name": CONTAINER,
        "image": job.image,
        "command": [escape_variables(word) for word in job.command],
        "env": env,
        "resources": {"limits": chips},  # requests are the same
    }


class _Dumper(yaml.SafeDumper):
    """A dumper that also quotes strings which kubectl's YAML reads as numbers or booleans."""


for _kind, _pattern, _first in (
    ("float", r"\d+(\.\d*)?e[-+]?\d+", "0123456789"),
    ("int", r"0o[0-7]+", "0"),
    ("bool", r"[yYnN]", "yYnN"),
):
    _Dumper.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})$", re.IGNORECASE), list(_first)
    )


def _file(job: Gke) -> File:
    text = yaml.dump(manifest(job), Dumper=_Dumper, sort_keys=False, width=1000)
    return File(f"launched/{job.job_name}.yaml", text, "the JobSet")
