"""Commands that a person runs once, before the first job. The launcher prints them only."""

import json
import re
import shlex
from typing import NamedTuple

from switch_jax.launch.commands import Command
from switch_jax.launch.job import Job

# Compute Engine's default account, which hosts and nodes use if no other account is given.
DEFAULT_ACCOUNT = "serviceAccount:PROJECT_NUMBER-compute@developer.gserviceaccount.com"


class Members(NamedTuple):
    """IAM members, for example 'serviceAccount:EMAIL'.

    Attributes:
      bucket_user: writes MODEL_DIR, and reads the job's other buckets.
      image_reader: pulls the image.
      secret_reader: reads the job's secrets from Secret Manager; None: they are kept elsewhere.
    """

    bucket_user: str
    image_reader: str
    secret_reader: str | None = None


def for_every_target(job: Job, members: Members) -> list[Command]:
    """The commands that create the bucket and the image, and give access to them."""
    secrets = _secrets(job) if job.secrets and members.secret_reader else []
    return [_bucket(job), *secrets, *_repository(job), *_roles(job, members), *_image(job)]


def enable(service: str, project: str) -> Command:
    """Allows the project to use a service of Google Cloud."""
    argv = ("gcloud", "services", "enable", service, f"--project={project}")
    return once(argv, f"allow the project to use {service}")


def network_flags(job: Job) -> list[str]:
    """gcloud's flags for the network of the hosts."""
    values = {"--network": job.network, "--subnetwork": job.subnetwork}
    return [f"{name}={value}" for name, value in values.items() if value]


def internet(job: Job) -> list[Command]:
    """Lets nodes without addresses on the internet fetch JobSet's image from there.

    docs.cloud.google.com/kubernetes-engine/docs/how-to/network-isolation; Cloud NAT also turns on
    Private Google Access, by which the nodes reach buckets and images.
    """
    name = str(job.cluster)
    routers = ("gcloud", "compute", "routers")
    place = (f"--region={_region(job)}", f"--project={job.project}")
    router = (*routers, "create", name, f"--network={job.network or 'default'}", *place)
    ranges = ("--auto-allocate-nat-external-ips", "--nat-all-subnet-ip-ranges")
    nat = (*routers, "nats", "create", name, f"--router={name}", *ranges, *place)
    why = "unless the network has Cloud NAT: "
    return [
        once(router, f"{why}create a router for it"),
        once(nat, f"{why}let hosts reach the internet; it costs money until you delete the router"),
    ]


def _region(job: Job) -> str:
    """The region of the job's zone."""
    return re.sub(r"(\d)-\w+$", r"\1", job.zone)


def _bucket(job: Job) -> Command:
    argv = (
        *("gcloud", "storage", "buckets", "create", f"gs://{job.bucket}"),
        f"--location={_region(job)}",
        f"--project={job.project}",
        "--uniform-bucket-level-access",
    )
    return once(argv, "create the bucket of MODEL_DIR, in the region of the slices")


def bucket_roles(job: Job, member: str) -> list[tuple[str, ...]]:
    """Commands that let an account write MODEL_DIR's bucket, and read the job's others."""
    bind = ("gcloud", "storage", "buckets", "add-iam-policy-binding")
    roles = {job.bucket: "objectUser"} | dict.fromkeys(job.read_buckets, "objectViewer")
    return [
        (*bind, f"gs://{bucket}", f"--member={member}", f"--role=roles/storage.{role}")
        for bucket, role in roles.items()
    ]


def _secrets(job: Job) -> list[Command]:
    return [
        enable("secretmanager.googleapis.com", job.project),
        *(
            keep_secret(name, f"gcloud secrets create {name} --data-file=- --project={job.project}")
            for name in job.secrets
        ),
    ]


def keep_secret(name: str, command: str) -> Command:
    """Gives the value of this shell's variable to a command that reads and keeps it."""
    argv = ("bash", "-c", f': "${{{name}:?}}"; printf %s "${name}" | {command}')
    return once(argv, f"keep the value of {name}, a variable of this shell (export {name}=...)")


def _repository(job: Job) -> list[Command]:
    """Creates the image's repository, if it is in Artifact Registry."""
    where = _registry(job)
    if not where:
        return []
    create = ("gcloud", "artifacts", "repositories", "create", where["name"])
    place = (f"--location={where['location']}", f"--project={where['project']}")
    login = ("gcloud", "auth", "configure-docker", where["host"], "--quiet")
    return [
        enable("artifactregistry.googleapis.com", where["project"]),
        once(
            (*create, "--repository-format=docker", *place), "create the repository for the image"
        ),
        once(login, "let docker on this machine push to it"),
    ]


def _roles(job: Job, members: Members) -> list[Command]:
    """Lets the job use its buckets, and the hosts pull the image."""
    bind = "add-iam-policy-binding"
    buckets = bucket_roles(job, members.bucket_user)
    found = [once(argv, "allow the job's account to use the bucket") for argv in buckets]
    for name in job.secrets if members.secret_reader else ():
        allow = (
            *("gcloud", "secrets", bind, name),
            *(f"--member={members.secret_reader}", "--role=roles/secretmanager.secretAccessor"),
            f"--project={job.project}",
        )
        found.append(once(allow, "allow the hosts to read the secret"))
    where = _registry(job)
    if where:
        argv = (
            *("gcloud", "artifacts", "repositories", bind, where["name"]),
            *(f"--location={where['location']}", f"--project={where['project']}"),
            *(f"--member={members.image_reader}", "--role=roles/artifactregistry.reader"),
        )
        found.append(once(argv, "allow the hosts to pull the image"))
    if not any("PROJECT_NUMBER" in word for command in found for word in command.argv):
        return found
    number = ("gcloud", "projects", "describe", job.project, "--format=value(projectNumber)")
    return [once(number, "print the number to write for PROJECT_NUMBER below"), *found]


def _registry(job: Job) -> dict[str, str] | None:
    """The image's repository in Artifact Registry; None if it is elsewhere."""
    host = r"(?P<host>(?P<location>[-a-z0-9]+)-docker\.pkg\.dev)"
    found = re.match(host + r"/(?P<project>[^/]+)/(?P<name>[^/]+)/", job.image)
    return found.groupdict() if found else None


def _image(job: Job) -> list[Command]:
    """The image of switch_jax and, on top of it, one with the job's own files.

    An image that is named by its digest is there already.
    """
    if "@" in job.image:
        return []
    base = f"{job.image}-base" if job.own_files else job.image
    build = ("docker", "build", "--platform=linux/amd64")
    commands = [
        once(
            (*build, "--file=launch/Dockerfile", f"--tag={base}", "."),
            "build the image of switch_jax, from a checkout",
        )
    ]
    if job.own_files:
        # Each file goes to the folder that it has here, below the image's working directory.
        folders = [f"/app/{file[: file.rfind('/') + 1]}" for file in job.own_files]
        pairs = zip(job.own_files, folders, strict=True)
        copies = [f"COPY {json.dumps(pair)}" for pair in pairs]
        dockerfile = shlex.join([f"FROM {base}", *copies])
        own = shlex.join([*build, f"--tag={job.image}", "--file=-", "."])
        commands.append(
            once(
                ("bash", "-c", f"printf '%s\\n' {dockerfile} | {own}"),
                "build one with your files on top of it, from the folder that has them",
            )
        )
    push = ("docker", "push", job.image)
    return [*commands, once(push, "push the image to where the hosts pull it from")]


def once(argv: tuple[str, ...], why: str) -> Command:
    """A command that a person runs once."""
    return Command(argv, f"once, run it yourself: {why}")
