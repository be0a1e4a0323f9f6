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
_LABEL = r"[a-z]([-a-z0-9]*[a-z0-9])?"  # RFC 1035
_ZONE = r"[a-z]+-[a-z]+[0-9]+-(ai[0-9]+)?[a-z]"
_PART = r"[a-zA-Z0-9_][a-zA-Z0-9_.-]*"
_IMAGE = rf"{_PART}(:[0-9]+)?(/{_PART})+(:(?!latest$){_PART}|@sha256:[0-9a-f]{{64}})"
_VARIABLE = r"[a-zA-Z_][a-zA-Z0-9_]*"
# Names of the secret in Kubernetes, and of libtpu's variables, are made of capital letters too.
_SECRET = r"[A-Z]([A-Z0-9_]{0,61}[A-Z0-9])?"


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
      network, subnetwork: of TPU VMs; None: the project's default network.
      internal_ips: TPU VMs get no address that the internet reaches.
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
    network: str | None = None
    subnetwork: str | None = None
    internal_ips: bool = False
    own_files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises UserError where a mistake would show late, or cost money.

        What gcloud, kubectl or xpk refuses at its first call is left to it.
        """
        check_name(self.name)
        if not re.fullmatch(_IMAGE, self.image):
            raise UserError(
                f"--image={quote(self.image)}: write HOST/PATH:TAG or HOST/PATH@sha256:DIGEST; "
                "'latest' may be another image on each host and after a restart"
            )
        if not re.fullmatch(_ZONE, self.zone):  # in a region GKE makes nodes in all of its zones
            raise UserError(f"--zone={quote(self.zone)}: write a zone, as europe-west4-a")
        if self.spot and self.reserved:
            raise UserError("--spot and --reserved are two kinds of capacity: give one of them")
        hardware = self.hardware
        if hardware.hosts_per_slice * hardware.chips_per_host * hardware.count != hardware.chips:
            raise UserError(
                f"--topology={hardware.name}: {hardware.topology} is not a number of whole hosts, "
                f"of {hardware.chips_per_host} chips each"
            )
        _check_paths(self)
        _check_variables(self)

    @property
    def hardware(self) -> Slice:
        """The slices."""
        return parse_slice(self.topology)

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
    if not re.fullmatch(_LABEL, name) or len(name) > _LONGEST_NAME:
        raise UserError(
            f"--job_name={quote(name)}: write at most {_LONGEST_NAME} small letters, digits "
            "and hyphens, a letter first and no hyphen last"
        )


def _check_paths(job: Job) -> None:
    for name, url in (("MODEL_DIR", job.model_dir), *job.reads):
        if not url.startswith("gs://"):
            raise UserError(
                f"{name} {url!r}: the hosts see no folder of this machine, and use Google Cloud's "
                "buckets alone: write gs://BUCKET/FOLDER"
            )
        bucket_path(url, name)
    if not bucket_path(job.model_dir)[1]:
        raise UserError(f"MODEL_DIR = {job.model_dir!r}: write a folder of the bucket")


def _check_variables(job: Job) -> None:
    for variable in job.env:
        name, equals, value = variable.partition("=")
        shown = without_value(variable)
        if not re.fullmatch(_VARIABLE, name) or not equals:
            raise UserError(f"--env={shown}: write --env=NAME=VALUE")
        if looks_secret(name, value):
            raise UserError(
                f"--env={shown}: this looks like a secret, and every printed command would show "
                "it; --secret=NAME keeps it in the cloud"
            )
    for name in job.secrets:
        if not re.fullmatch(_SECRET, name):
            raise UserError(
                f"--secret={without_value(name)}: write the name alone, as in "
                "--secret=WANDB_API_KEY: capital letters, digits and _, a letter first; the value "
                "is read from a variable of your shell"
            )
