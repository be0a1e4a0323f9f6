"""What has to be there before a job's first start: shown, and never done by the launcher."""

import re

from switch_jax.launch.job import Job
from switch_jax.launch.steps import Command

_JOBSET = "https://github.com/kubernetes-sigs/jobset/releases/download/v0.12.0/manifests.yaml"


def steps(job: Job) -> list[Command]:
    """The commands that make it, for a checkout of switch_jax and an empty project."""
    once = {"gke": _gke, "xpk": _xpk}.get(job.on, _tpu_vm)(job)
    return [*once, *(_bucket(job, bucket) for bucket in job.buckets), *_image(job)]


def _tpu_vm(job: Job) -> list[Command]:
    return [_enable(job, "tpu.googleapis.com")]


def _gke(job: Job) -> list[Command]:
    cluster = ("gcloud", "container", "clusters", "create", str(job.cluster))
    mounts = (f"--workload-pool={job.project}.svc.id.goog", "--addons=GcsFuseCsiDriver")
    install = ("kubectl", "apply", "--server-side", f"--filename={_JOBSET}")
    account = ("kubectl", "create", "serviceaccount", str(job.service_account))
    own = [_once(account, "whom the pods act as")] if job.service_account else []
    return [
        _enable(job, "container.googleapis.com"),
        _once((*cluster, *_place(job), *mounts), "the cluster, whose pods may mount buckets"),
        _once(install, "JobSet, in the cluster that kubectl knows"),
        *own,
        *(_node_pool(job, name) for name in node_pools(job)),
    ]


def node_pools(job: Job) -> list[str]:
    """Names of the node pools, one a slice."""
    return [f"{job.name}-{i}" for i in range(job.hardware.count)]


def _node_pool(job: Job, name: str) -> Command:
    hardware = job.hardware
    several_hosts = hardware.hosts_per_slice > 1
    argv = (
        *("gcloud", "container", "node-pools", "create", name),
        f"--cluster={job.cluster}",
        *_place(job),
        f"--machine-type={hardware.generation.cloud.gke_machine}-{hardware.chips_per_host}t",
        *((f"--tpu-topology={hardware.topology}",) if several_hosts else ()),
        f"--num-nodes={hardware.hosts_per_slice}",
        *(("--spot",) if job.spot else ()),
    )
    return _once(argv, "a slice, which costs from then on")


def _xpk(job: Job) -> list[Command]:
    argv = (
        *("xpk", "cluster", "create", f"--cluster={job.cluster}"),
        f"--zone={job.zone}",
        f"--project={job.project}",
        f"--tpu-type={job.hardware.accelerator_type}",
        f"--num-slices={job.hardware.count}",
        "--spot" if job.spot else "--on-demand",
    )
    why = "the cluster and its slices, which cost from then on"
    return [_enable(job, "container.googleapis.com"), _once(argv, why)]


def _enable(job: Job, service: str) -> Command:
    argv = ("gcloud", "services", "enable", service, f"--project={job.project}")
    return _once(argv, "the project may use the service")


def _bucket(job: Job, bucket: str) -> Command:
    region = re.sub(r"(\d)-\w+$", r"\1", job.zone)
    argv = (
        *("gcloud", "storage", "buckets", "create", f"gs://{bucket}"),
        f"--location={region}",
        f"--project={job.project}",
        *("--uniform-bucket-level-access", "--enable-hierarchical-namespace"),
    )
    return _once(
        argv, "the bucket, in the region of the slices; its folders can be renamed at once"
    )


def _image(job: Job) -> list[Command]:
    build = ("docker", "build", "--file=launch/Dockerfile", f"--tag={job.image}", ".")
    return [
        _once(build, "the image, from a checkout; docs/launching.md adds files of your own"),
        _once(("docker", "push", job.image), "the image, to where the hosts pull it from"),
    ]


def _place(job: Job) -> tuple[str, str]:
    return (f"--location={job.zone}", f"--project={job.project}")


def _once(argv: tuple[str, ...], why: str) -> Command:
    return Command(argv, f"once, not done here: {why}")
