"""What has to be there before a job's first start: shown, and never done by the launcher."""

import re

from switch_jax.launch.commands import Command
from switch_jax.launch.job import Job

_JOBSET = "https://github.com/kubernetes-sigs/jobset/releases/download/v0.12.0/manifests.yaml"


def steps(job: Job) -> list[Command]:
    """The commands that make it, for a checkout of switch_jax and an empty project."""
    once = {"gke": _gke, "xpk": _xpk}.get(job.on, _tpu_vm)(job)
    buckets = [_bucket(job, bucket) for bucket in job.buckets]
    return [*once, *buckets, *_repository(job), *_roles(job), *_image(job)]


def _tpu_vm(job: Job) -> list[Command]:
    enable = _enable("tpu.googleapis.com", job.project)
    own = re.fullmatch(r"(.+)@(.+)\.iam\.gserviceaccount\.com", job.service_account or "")
    if not own:
        return [enable]
    create = ("gcloud", "iam", "service-accounts", "create", own[1], f"--project={own[2]}")
    return [enable, _once(create, "whom the hosts act as")]


def _gke(job: Job) -> list[Command]:
    cluster = ("gcloud", "container", "clusters", "create", str(job.cluster))
    mounts = (f"--workload-pool={job.project}.svc.id.goog", "--addons=GcsFuseCsiDriver")
    install = ("kubectl", "apply", "--server-side", f"--filename={_JOBSET}")
    account = ("kubectl", "create", "serviceaccount", str(job.service_account))
    own = [_once(account, "whom the pods act as")] if job.service_account else []
    return [
        _enable("container.googleapis.com", job.project),
        _once((*cluster, *place(job), *mounts), "the cluster, whose pods may mount buckets"),
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
        *place(job),
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
    return [_enable("container.googleapis.com", job.project), _once(argv, why)]


def _enable(service: str, project: str) -> Command:
    argv = ("gcloud", "services", "enable", service, f"--project={project}")
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


def _repository(job: Job) -> list[Command]:
    """What makes the image's repository, where it is one of Artifact Registry."""
    where = _registry(job)
    if not where:
        return []
    create = ("gcloud", "artifacts", "repositories", "create", where["name"])
    place = (f"--location={where['location']}", f"--project={where['project']}")
    login = ("gcloud", "auth", "configure-docker", where["host"], "--quiet")
    return [
        _enable("artifactregistry.googleapis.com", where["project"]),
        _once((*create, "--repository-format=docker", *place), "where the image goes"),
        _once(login, "docker here may push to it"),
    ]


def _roles(job: Job) -> list[Command]:
    """What lets the job use its buckets, and the hosts pull the image."""
    default = "serviceAccount:PROJECT_NUMBER-compute@developer.gserviceaccount.com"
    own = f"serviceAccount:{job.service_account}" if job.service_account else default
    pool = f"locations/global/workloadIdentityPools/{job.project}.svc.id.goog"
    pods = (
        f"principal://iam.googleapis.com/projects/PROJECT_NUMBER/{pool}"
        f"/subject/ns/default/sa/{job.service_account or 'default'}"
    )
    user, puller = {"gke": (pods, default), "xpk": (default, default)}.get(job.on, (own, own))
    bind = "add-iam-policy-binding"
    buckets = [
        (
            *("gcloud", "storage", "buckets", bind, f"gs://{bucket}"),
            *(f"--member={user}", "--role=roles/storage.objectUser"),
        )
        for bucket in job.buckets
    ]
    found = [_once(argv, "whom the job acts as may use the bucket") for argv in buckets]
    where = _registry(job)
    if where:
        argv = (
            *("gcloud", "artifacts", "repositories", bind, where["name"]),
            *(f"--location={where['location']}", f"--project={where['project']}"),
            *(f"--member={puller}", "--role=roles/artifactregistry.reader"),
        )
        found.append(_once(argv, "the hosts may pull the image"))
    if not any("PROJECT_NUMBER" in word for command in found for word in command.argv):
        return found
    number = ("gcloud", "projects", "describe", job.project, "--format=value(projectNumber)")
    return [_once(number, "prints what to write for PROJECT_NUMBER below"), *found]


def _registry(job: Job) -> dict[str, str] | None:
    """Where the image is in Artifact Registry; None: it is elsewhere."""
    host = r"(?P<host>(?P<location>[-a-z0-9]+)-docker\.pkg\.dev)"
    found = re.match(host + r"/(?P<project>[^/]+)/(?P<name>[^/]+)/", job.image)
    return found.groupdict() if found else None


def _image(job: Job) -> list[Command]:
    build = ("docker", "build", "--file=launch/Dockerfile", f"--tag={job.image}", ".")
    return [
        _once(build, "the image, from a checkout; docs/launching.md adds files of your own"),
        _once(("docker", "push", job.image), "the image, to where the hosts pull it from"),
    ]


def place(job: Job) -> tuple[str, str]:
    """Where the cluster is, as gcloud takes it."""
    return (f"--location={job.zone}", f"--project={job.project}")


def _once(argv: tuple[str, ...], why: str) -> Command:
    return Command(argv, f"once, not done here: {why}")
