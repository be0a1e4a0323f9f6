"""A JobSet on a cluster of GKE, whose variables tell `jax.distributed.initialize` of all pods."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import yaml

from switch_jax.exit_codes import PREEMPTED
from switch_jax.hardware.tpus import GIB
from switch_jax.launch import setup_commands
from switch_jax.launch.commands import Command, File, Step, run_command, write_file
from switch_jax.launch.google_cloud import ServiceAccount
from switch_jax.launch.jobset import CONTAINER, END_WHY, RESERVATION, JobSetTarget, escape_variables
from switch_jax.launch.restarts import FINAL
from switch_jax.launch.tpu_hosts import SAVE_SECONDS

_MOST_OF_MEMORY = 0.9
_STOP = sorted(code for code in FINAL if code)

# The JobSet (jobset.x-k8s.io/v1alpha2, JobSet 0.10 and later). The exit code of a container
# decides, as on other targets: 2, 3 and 130 fail the JobSet; 75 starts it again without counting,
# and so does a pod that a spot node had to give up; any other code counts as a restart. Any failure
# of a pod ends the Job of its slice, since no host can go on alone.
_MANIFEST = """\
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata: {metadata}
spec:
  failurePolicy:
    maxRestarts: {restarts}
    rules:
    - name: stop
      action: FailJobSet
      onJobFailureReasons: [PodFailurePolicy]
      onJobFailureMessagePatterns: ['exit code ({stop_pattern}) ']
    - name: preempted
      action: RestartJobSetAndIgnoreMaxRestarts
      onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
  - name: slice
    replicas: {slices}
    template:
      spec:
        parallelism: {hosts}
        completions: {hosts}
        completionMode: Indexed
        backoffLimit: 0
        podFailurePolicy:
          rules:
          - action: FailJob
            onExitCodes: {{containerName: {container}, operator: In, values: {stop}}}
          - action: FailJob
            onExitCodes: {{containerName: {container}, operator: In, values: [{again}]}}{disrupted}
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: {save_seconds}
            # Else the trainer would be process 1, which ignores SIGTERM until it has a handler.
            shareProcessNamespace: true{account}
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: {accelerator}
              cloud.google.com/gke-tpu-topology: {topology}{on_spot}
            containers:
            - name: {container}
              image: {image}
              command:{command}
              env:{env}
              # Of a machine's memory a tenth is left to the node. With less than the request no
              # run works; over the limits the pod ends, and not the node. The disk has logs,
              # traces and copies of data files: checkpoints go to the bucket.
              resources:
                requests: {{memory: {request}Gi, ephemeral-storage: 10Gi}}
                limits: {{google.com/tpu: "{chips}", memory: {limit}Gi, ephemeral-storage: 40Gi}}
"""
# Spot nodes may be taken away before a pod can save. The kubelet also sets this condition for a pod
# that takes too much disk, and `restart_limit` ends such a job.
_DISRUPTED = """
          - action: FailJob
            onPodConditions: [{type: DisruptionTarget, status: "True"}]"""
_ON_SPOT = """
              cloud.google.com/gke-spot: "true"
            tolerations: [{key: cloud.google.com/gke-spot, operator: Equal, value: "true"}]"""


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
        cluster = ("gcloud", "container", "clusters", "delete", self.cluster, *_location(self))
        no_other = "later, run it yourself: deletes the cluster, if it has no other job"
        return [
            Command(self.kubectl("delete", "jobset", self.job_name), END_WHY),
            *(Command((*delete, name, *flags), why) for name in _node_pools(self)),
            Command(cluster, no_other),
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


def manifest(job: Gke) -> str:
    """The JobSet as YAML; all texts of the user are in quotes."""
    hardware, name = job.hardware, _quoted(job.job_name)
    metadata = f"{{name: {name}}}"
    if hardware.hosts_per_slice > 1:  # all pods of a Job have to be in one node pool, its slice
        one_pool = "alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool"
        metadata = f"{{name: {name}, annotations: {{{one_pool}}}}}"
    variables = job.variables.items()
    env = [{"name": name, "value": escape_variables(value)} for name, value in variables]
    secrets = [(name, {"name": _secret(name), "key": name}) for name in job.secret]
    env += [{"name": name, "valueFrom": {"secretKeyRef": key}} for name, key in secrets]
    assert hardware.host_memory_bytes is not None, "known of all generations on GKE"
    limit = math.floor(hardware.host_memory_bytes * _MOST_OF_MEMORY / GIB)
    account = f"\n            serviceAccountName: {_quoted(job.service_account)}"
    return _MANIFEST.format(
        metadata=metadata,
        restarts=job.restarts_of_cluster,
        stop_pattern="|".join(map(str, _STOP)),
        stop=_STOP,
        again=PREEMPTED,
        slices=hardware.count,
        hosts=hardware.hosts_per_slice,
        container=CONTAINER,
        disrupted=_DISRUPTED if job.spot else "",
        save_seconds=SAVE_SECONDS,
        account=account if job.service_account else "",
        accelerator=hardware.generation.gke_accelerator,
        topology=hardware.topology,
        on_spot=_ON_SPOT if job.spot else "",
        image=_quoted(job.image),
        command=_items(map(escape_variables, job.command)),
        env=_items(env),
        chips=hardware.chips_per_host,
        request=min(math.ceil(job.host_bytes / GIB), limit),
        limit=limit,
    )


def _items(values: Iterable[object]) -> str:
    """The items of a list in the manifest, a line each."""
    return "".join(f"\n              - {_quoted(value)}" for value in values)


def _quoted(value: object) -> str:
    """A value as YAML on one line, with all texts in quotes."""
    style: dict[str, Any] = {"default_style": '"', "default_flow_style": True, "sort_keys": False}
    return yaml.safe_dump(value, **style, allow_unicode=True, width=math.inf).strip()


def _secret(name: str) -> str:
    """The name in Kubernetes of a variable's secret, whose key is the variable's name."""
    return name.lower().replace("_", "-")


def _file(job: Gke) -> File:
    return File(f"launched/{job.job_name}.yaml", manifest(job), "the JobSet")
