"""The description of a job on TPUs of Google Cloud."""

import dataclasses
import re

from switch_jax.errors import UserError
from switch_jax.hardware import Slice, parse_slice
from switch_jax.launch.commands import quote
from switch_jax.launch.environment import environment
from switch_jax.launch.target import AnyJob
from switch_jax.launch.variables import looks_secret, without_value
from switch_jax.storage import bucket_path

# Names such as NAME-slice-3-63 are made of it, which may have 63 characters.
_LONGEST_NAME = 40
LABEL = r"[a-z]([-a-z0-9]*[a-z0-9])?"  # RFC 1035
_LONGEST_CLUSTER = 40
_REGION = r"[a-z]+-[a-z]+[0-9]+"
_ZONE = _REGION + r"-(ai[0-9]+)?[a-z]"
WORD = r"[a-z0-9]([-._a-z0-9]*[a-z0-9])?"  # does not begin with a hyphen, as a flag does
_PROJECT = rf"({WORD}:)?[a-z][-a-z0-9]{{4,28}}[a-z0-9]"
_TAG = r":[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}|@sha256:[0-9a-f]{64}"
_IMAGE = rf"{WORD}(:[0-9]+)?(/{WORD})+({_TAG})"
_VARIABLE = r"[a-zA-Z_][a-zA-Z0-9_]*"
# Names of the secret in Kubernetes, and of libtpu's variables, are made of capital letters too.
_SECRET = r"[A-Z]([A-Z0-9_]{0,61}[A-Z0-9])?"
_PART = r"[a-z0-9]([-_a-z0-9]{0,61}[a-z0-9])?"  # taken by Kubernetes and by Compute Engine
_NETWORK = rf"{WORD}(/{WORD})*"


@dataclasses.dataclass(frozen=True)
class Job(AnyJob):
    """One run of `switch_jax train`, or `doctor`, on TPU hosts of Google Cloud.

    Attributes:
      name: of the job, and of everything that is created for it.
      model_dir: MODEL_DIR of the config, gs://BUCKET/FOLDER.
      topology: the slices, for example 'v5e-16' or '4xv5e-256'.
      project: ID of the project of Google Cloud that pays.
      zone: of the slices, and of the GKE cluster.
      image: the container image that every host runs, with its tag or digest.
      reads: what else it reads from buckets: the macro or flag that names it, and its URL.
      cluster: the GKE cluster; None on TPU VMs.
      service_account: the account that the job uses: on TPU VMs an e-mail address, on GKE the name
        of a Kubernetes service account. None: the default account.
      spot: use cheaper capacity that may be taken away at any time.
      reserved: use capacity that the project has reserved.
      env: environment variables of the trainer, as 'NAME=VALUE'.
      secrets: names of variables whose values are kept by the cloud, and stand in no command.
      labels: of the slices or pods, as 'NAME=VALUE'.
      network, subnetwork: of the hosts; None: the project's default network. With a cluster, these
        and internal_ips are for the commands that create it.
      internal_ips: the hosts get no address that the internet reaches.
      own_files: gin files, task modules and a vocabulary that the image needs, relative to this
        folder; those that end in '/' are folders.
    """

    name: str
    model_dir: str
    topology: str
    project: str
    zone: str
    image: str
    reads: tuple[tuple[str, str], ...] = ()
    cluster: str | None = None
    service_account: str | None = None
    spot: bool = False
    reserved: bool = False
    env: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    network: str | None = None
    subnetwork: str | None = None
    internal_ips: bool = False
    own_files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises UserError if Google Cloud would refuse a name, or the hosts cannot use a path."""
        _check_names(self)
        _check_place(self)
        _check_capacity(self)
        _check_variables(self)
        _check_labels(self)
        _check_network(self)

    @property
    def hardware(self) -> Slice:
        """The slices."""
        return parse_slice(self.topology)

    @property
    def bucket(self) -> str:
        """The bucket of MODEL_DIR."""
        return bucket_path(self.model_dir)[0]

    @property
    def read_buckets(self) -> tuple[str, ...]:
        """The other buckets, which it reads alone."""
        return tuple(sorted({bucket_path(url)[0] for _, url in self.reads} - {self.bucket}))

    @property
    def command(self) -> tuple[str, ...]:
        """The command that every host runs."""
        return ("switch_jax", self.subcommand, "--multihost", *self.train)

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables of the trainer but for the secrets; those of --env win."""
        given = (variable.split("=", 1) for variable in self.env)
        return {**environment(self.hardware), **dict(given)}


def check_name(name: str) -> None:
    """Raises UserError if a target would refuse the name of a job."""
    if not re.fullmatch(LABEL, name) or len(name) > _LONGEST_NAME:
        raise UserError(
            f"--job_name={quote(name)}: write at most {_LONGEST_NAME} small letters, digits "
            f"and hyphens (these are {len(name)} characters), a letter first and no hyphen last"
        )


def _check_names(job: Job) -> None:
    check_name(job.name)
    if not re.fullmatch(_PROJECT, job.project):
        raise UserError(
            f"--project={quote(job.project)}: write the project's ID, of 6 to 30 small letters, "
            "digits and hyphens; `gcloud projects list` has it"
        )
    if not re.fullmatch(_IMAGE, job.image):
        raise UserError(
            f"--image={quote(job.image)}: write HOST/PATH:TAG or HOST/PATH@sha256:DIGEST, for "
            "example us-docker.pkg.dev/PROJECT/REPOSITORY/switch_jax:1"
        )
    if job.image.endswith(":latest"):
        raise UserError(
            f"--image={job.image}: 'latest' may be another image on each host and after a restart; "
            "give the image a tag of its own"
        )


def _check_place(job: Job) -> None:
    if not re.fullmatch(_ZONE, job.zone):
        region = job.zone if re.fullmatch(_REGION, job.zone) else "europe-west4"
        cluster = "; a regional cluster would make a slice's nodes in each of its zones"
        raise UserError(
            f"--zone={quote(job.zone)}: write a zone, as in --zone={region}-a"
            f"{cluster if job.cluster else ''}"
        )
    for name, url in (("MODEL_DIR", job.model_dir), *job.reads):
        if not url.startswith("gs://"):
            raise UserError(
                f"{name} {url!r}: the hosts see no folder of this machine, and use Google Cloud's "
                "buckets alone: write gs://BUCKET/FOLDER"
            )
        bucket_path(url, name)
    bucket, folder = bucket_path(job.model_dir)
    if not folder:
        raise UserError(
            f"MODEL_DIR = {job.model_dir!r}: write a folder of the bucket, as in "
            f"gs://{bucket}/runs/{job.name}"
        )


def _check_capacity(job: Job) -> None:
    if job.cluster is not None and not (
        re.fullmatch(LABEL, job.cluster) and len(job.cluster) <= _LONGEST_CLUSTER
    ):
        raise UserError(
            f"--cluster={quote(job.cluster)}: write at most {_LONGEST_CLUSTER} small letters, "
            "digits and hyphens, a letter first and no hyphen last"
        )
    if job.spot and job.reserved:
        raise UserError("--spot and --reserved are two kinds of capacity: give one of them")
    hardware = job.hardware
    if hardware.hosts_per_slice * hardware.chips_per_host * hardware.count != hardware.chips:
        raise UserError(
            f"--topology={hardware.name}: {hardware.topology} is not a number of whole hosts, of "
            f"{hardware.chips_per_host} chips each"
        )


def _check_variables(job: Job) -> None:
    for variable in job.env:
        name, equals, value = variable.partition("=")
        shown = without_value(variable)
        if not re.fullmatch(_VARIABLE, name) or not equals:
            raise UserError(f"--env={shown}: write --env=NAME=VALUE")
        if looks_secret(name, value):
            secret = name.upper().strip("_")
            advice = f"; write --secret={secret} in its place, which keeps it in the cloud"
            raise UserError(
                f"--env={shown}: this looks like a secret, and every printed command would show it"
                f"{advice if re.fullmatch(_SECRET, secret) else ''}"
            )
    for name in job.secrets:
        if not re.fullmatch(_SECRET, name):
            raise UserError(
                f"--secret={without_value(name)}: write the name alone, as in "
                "--secret=WANDB_API_KEY: capital letters, digits and _, a letter first; the value "
                "is read from a variable of your shell"
            )


def _check_labels(job: Job) -> None:
    for label in job.labels:
        if not re.fullmatch(f"(?=[a-z]){_PART}={_PART}", label):
            raise UserError(
                f"--label={quote(label)}: write --label=NAME=VALUE, each of at most 63 small "
                "letters, digits, hyphens and _, a letter first"
            )


def _check_network(job: Job) -> None:
    for flag, name in (("network", job.network), ("subnetwork", job.subnetwork)):
        if name is not None and not re.fullmatch(_NETWORK, name):
            raise UserError(
                f"--{flag}={quote(name)}: write its name, or for that of another project "
                f"projects/PROJECT/.../{flag}s/NAME"
            )
