"""What has to be there before a job's first start: shown, and never done by the launcher."""

import re
from typing import NamedTuple

from switch_jax.launch.commands import Command
from switch_jax.launch.job import Job

# Compute Engine's, which hosts and nodes act as if no other account is given.
DEFAULT_ACCOUNT = "serviceAccount:PROJECT_NUMBER-compute@developer.gserviceaccount.com"


class Members(NamedTuple):
    """IAM members, as 'serviceAccount:EMAIL'.

    Attributes:
      bucket_user: reads and writes the job's buckets.
      image_reader: pulls the image.
    """

    bucket_user: str
    image_reader: str


def for_every_target(job: Job, members: Members) -> list[Command]:
    """The buckets, the image, and access to them."""
    buckets = [_bucket(job, bucket) for bucket in job.buckets]
    return [*buckets, *_repository(job), *_roles(job, members), *_image(job)]


def enable(service: str, project: str) -> Command:
    argv = ("gcloud", "services", "enable", service, f"--project={project}")
    return once(argv, "the project may use the service")


def _bucket(job: Job, bucket: str) -> Command:
    region = re.sub(r"(\d)-\w+$", r"\1", job.zone)
    argv = (
        *("gcloud", "storage", "buckets", "create", f"gs://{bucket}"),
        f"--location={region}",
        f"--project={job.project}",
        *("--uniform-bucket-level-access", "--enable-hierarchical-namespace"),
    )
    return once(argv, "the bucket, in the region of the slices; its folders can be renamed at once")


def _repository(job: Job) -> list[Command]:
    """What makes the image's repository, where it is one of Artifact Registry."""
    where = _registry(job)
    if not where:
        return []
    create = ("gcloud", "artifacts", "repositories", "create", where["name"])
    place = (f"--location={where['location']}", f"--project={where['project']}")
    login = ("gcloud", "auth", "configure-docker", where["host"], "--quiet")
    return [
        enable("artifactregistry.googleapis.com", where["project"]),
        once((*create, "--repository-format=docker", *place), "where the image goes"),
        once(login, "docker here may push to it"),
    ]


def _roles(job: Job, members: Members) -> list[Command]:
    """What lets the job use its buckets, and the hosts pull the image."""
    bind = "add-iam-policy-binding"
    buckets = [
        (
            *("gcloud", "storage", "buckets", bind, f"gs://{bucket}"),
            *(f"--member={members.bucket_user}", "--role=roles/storage.objectUser"),
        )
        for bucket in job.buckets
    ]
    found = [once(argv, "whom the job acts as may use the bucket") for argv in buckets]
    where = _registry(job)
    if where:
        argv = (
            *("gcloud", "artifacts", "repositories", bind, where["name"]),
            *(f"--location={where['location']}", f"--project={where['project']}"),
            *(f"--member={members.image_reader}", "--role=roles/artifactregistry.reader"),
        )
        found.append(once(argv, "the hosts may pull the image"))
    if not any("PROJECT_NUMBER" in word for command in found for word in command.argv):
        return found
    number = ("gcloud", "projects", "describe", job.project, "--format=value(projectNumber)")
    return [once(number, "prints what to write for PROJECT_NUMBER below"), *found]


def _registry(job: Job) -> dict[str, str] | None:
    """Where the image is in Artifact Registry; None: it is elsewhere."""
    host = r"(?P<host>(?P<location>[-a-z0-9]+)-docker\.pkg\.dev)"
    found = re.match(host + r"/(?P<project>[^/]+)/(?P<name>[^/]+)/", job.image)
    return found.groupdict() if found else None


def _image(job: Job) -> list[Command]:
    build = ("docker", "build", "--file=launch/Dockerfile", f"--tag={job.image}", ".")
    return [
        once(build, "the image, from a checkout; docs/launching.md adds files of your own"),
        once(("docker", "push", job.image), "the image, to where the hosts pull it from"),
    ]


def once(argv: tuple[str, ...], why: str) -> Command:
    return Command(argv, f"once, not done here: {why}")
