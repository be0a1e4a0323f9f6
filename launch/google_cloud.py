"""The base of all targets on TPUs of Google Cloud."""

import abc
import dataclasses
import re
from typing import Annotated

from switch_jax.config import Config
from switch_jax.hardware.prices import check_price, usd
from switch_jax.hardware.tpus import Slice, parse_slice
from switch_jax.launch import setup_commands
from switch_jax.launch.commands import (
    Command,
    Piped,
    Step,
    check_programs,
    quote,
    render,
    shell_line,
)
from switch_jax.launch.console import explain_interrupt, log
from switch_jax.launch.secret_detection import hide_value, looks_secret
from switch_jax.launch.target import Flag, JobName, Target, check_name
from switch_jax.storage import bucket_path
from switch_jax.utils.errors import UserError
from switch_jax.utils.units import counted

# libtpu's flags for several slices: all-reduces of gradients between them, also of different sizes,
# overlap with the backward pass. From DATA_PARALLEL_OVERLAP in github.com/AI-Hypercomputer/maxtext
# (Apache-2.0), benchmarks/xla_flags_library.py, whose configs use it for these generations. Few on
# purpose: collectives are asynchronous by default (openxla.org/xla/flags_guidance), and limits of
# VMEM that help one model hurt another.
_OVERLAP = (
    "--xla_tpu_enable_data_parallel_all_reduce_opt=true "
    "--xla_tpu_data_parallel_opt_different_sized_ops=true"
)
_WITH_OVERLAP = ("v5e", "v5p", "v6e")

_ZONE = r"[a-z]+-[a-z]+[0-9]+-(ai[0-9]+)?[a-z]"
_PART = r"[a-zA-Z0-9_][a-zA-Z0-9_.-]*"
_IMAGE = rf"{_PART}(:[0-9]+)?(/{_PART})+(:(?!latest$){_PART}|@sha256:[0-9a-f]{{64}})"
# Tags that by custom are given to one image after the other; 'latest' is refused.
_MOVING_TAGS = (
    "main", "master", "head", "trunk", "dev", "develop", "test", "staging", "prod", "production",
    "nightly", "edge", "stable", "current", "newest",
)  # fmt: skip
_VARIABLE = r"[a-zA-Z_][a-zA-Z0-9_]*"
# Names of the secret in Kubernetes, and of libtpu's variables, are made of capital letters too.
_SECRET = r"[A-Z]([A-Z0-9_]{0,61}[A-Z0-9])?"

ServiceAccount = Annotated[str | None, Flag("account of the job (default: the project's)", "NAME")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GoogleCloudTarget(Target):
    """A job on TPU hosts of Google Cloud, but for what differs between the targets there.

    Attributes:
      input_urls: what the job reads from buckets beside MODEL_DIR: (macro or flag, URL).
      user_files: gin files, task modules and a vocabulary that the image needs, relative to this
        folder; those that end in '/' are folders.
      host_bytes: what the job takes of each host's memory; see `planning.host_memory`.
    """

    sees_local_folders = False

    topology: Annotated[str, Flag("for example v5e-16, or 4xv5e-256 for 4 slices", "SLICE")]
    job_name: JobName
    project: Annotated[str, Flag("project of Google Cloud", "ID")]
    zone: Annotated[str, Flag("for example us-central1-a", "ZONE")]
    image: Annotated[str, Flag("container image with its tag; see docs/launch_targets.md", "IMAGE")]
    spot: Annotated[bool, Flag("use cheaper capacity that may be taken away")] = False
    reserved: Annotated[bool, Flag("use capacity that the project has reserved")] = False
    env: Annotated[
        tuple[str, ...], Flag("an environment variable of the hosts; repeat it", "NAME=VALUE")
    ] = ()
    secret: Annotated[
        tuple[str, ...],
        Flag("one whose value is kept in the cloud, as WANDB_API_KEY; repeat it", "NAME"),
    ] = ()
    price_per_chip_hour: Annotated[
        float | None,
        Flag("to know what an hour of all chips costs, and the run", "USD"),
    ] = None
    input_urls: tuple[tuple[str, str], ...] = ()
    user_files: tuple[str, ...] = ()
    host_bytes: int = 0

    def __post_init__(self) -> None:
        """Raises UserError on mistakes that show late or cost money; gcloud finds the others."""
        super().__post_init__()
        check_name(self.job_name)
        if not re.fullmatch(_IMAGE, self.image):
            raise UserError(
                f"--image={quote(self.image)}: write HOST/PATH:TAG or HOST/PATH@sha256:DIGEST; "
                "'latest' may be another image on each host and after a restart"
            )
        check_price(self.price_per_chip_hour)
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
        return parse_slice(self.topology)

    @property
    def command(self) -> tuple[str, ...]:
        return ("switch_jax", self.subcommand, "--multihost", *self.arguments)

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables of the trainer but for the secrets; those of --env win."""
        # So a host whose TPU does not start ends with an error, and does not train on its CPUs.
        found = {"JAX_PLATFORMS": "tpu,cpu"}
        if self.hardware.count > 1 and self.hardware.generation.name in _WITH_OVERLAP:
            found["LIBTPU_INIT_ARGS"] = _OVERLAP
        return {**found, **dict(variable.split("=", 1) for variable in self.env)}

    def store_secrets(self) -> list[Command]:
        """Commands that a person runs once, which store secrets where the hosts read them."""
        create = f"--data-file=- --project={self.project}"
        commands = {name: f"gcloud secrets create {name} {create}" for name in self.secret}
        return [setup_commands.store_secret(name, command) for name, command in commands.items()]

    def create_nodes(self) -> list[Command]:
        """Commands that a person runs once, after which chips cost money; none if `run` does it."""
        return []

    @abc.abstractmethod
    def commands(self) -> list[Step]:
        """The commands and files of `start_and_follow`, in the order in which it uses them."""

    @abc.abstractmethod
    def cleanup_commands(self) -> list[Command]:
        """Commands that a person runs to end the job (the first one), and to stop paying."""

    @abc.abstractmethod
    def start_and_follow(self) -> int:
        """Starts the job and follows it; `run` adds what is printed after Ctrl-C."""

    def check(self, config: Config) -> list[str]:
        from switch_jax.launch import preflight  # loads JAX

        tag = self.image.rpartition(":")[2]
        moves = (
            f"warning: --image={self.image}: a tag such as {tag} often moves to another image, and "
            "each restart takes the newest: give a tag that stays, or @sha256:DIGEST"
        )
        moving = [moves] if tag.lower() in _MOVING_TAGS else []
        return [*moving, *preflight.check(config, self.hardware)]

    def setup(self) -> list[Command | Piped]:
        """Commands that a person runs once, in a checkout of switch_jax; the nodes come last."""
        return [*self.store_secrets(), *setup_commands.image(self), *self.create_nodes()]

    def describe(self) -> str:
        slices = self.hardware
        size = f"{counted(slices.chips, 'chip')}, {counted(slices.hosts, 'host')}"
        title = f"{self.job_name}: {size} ({self.topology})"
        if self.price_per_chip_hour is not None:
            title += f", {usd(slices.chips * self.price_per_chip_hour)} an hour"
        return render(title, [*self.setup(), *self.commands(), *self.cleanup_commands()])

    def preflight(self, config: Config, skip_plan: bool) -> None:
        check_programs(self.commands())
        if not skip_plan:
            self.plan(config)

    def plan(self, config: Config) -> None:
        """Compiles the step; prints its memory, speed and price. UserError: it does not fit."""
        from switch_jax.launch import preflight

        log(f"compiling the step for {self.topology}, which takes some minutes")
        log(preflight.check_fits(config, self.hardware, self.price_per_chip_hour))

    def run(self) -> int:
        with explain_interrupt(self.job_name, shell_line(self.cleanup_commands()[0].argv)):
            return self.start_and_follow()


def _check_paths(job: GoogleCloudTarget) -> None:
    for name, url in (("MODEL_DIR", job.model_dir), *job.input_urls):
        if not url.startswith("gs://"):
            raise UserError(
                f"{name} {url!r}: the hosts see no folder of this machine, and use Google Cloud's "
                "buckets alone: write gs://BUCKET/FOLDER"
            )
        bucket_path(url, name)
    if not bucket_path(job.model_dir)[1]:
        raise UserError(f"MODEL_DIR = {job.model_dir!r}: write a folder of the bucket")


def _check_variables(job: GoogleCloudTarget) -> None:
    for variable in job.env:
        name, equals, value = variable.partition("=")
        shown = hide_value(variable)
        if not re.fullmatch(_VARIABLE, name) or not equals:
            raise UserError(f"--env={shown}: write --env=NAME=VALUE")
        if looks_secret(name, value):
            raise UserError(
                f"--env={shown}: this looks like a secret, and every printed command would show "
                "it; --secret=NAME keeps it in the cloud"
            )
    for name in job.secret:
        if not re.fullmatch(_SECRET, name):
            raise UserError(
                f"--secret={hide_value(name)}: write the name alone, as in "
                "--secret=WANDB_API_KEY: capital letters, digits and _, a letter first"
            )


def check_usual_shape(hardware: Slice) -> None:
    """Raises UserError if the accelerator type alone would ask for a slice of another shape."""
    generation, shape = hardware.generation, hardware.shape
    alike = [s for s in generation.shapes if generation.size(s) == generation.size(shape)]
    if alike and shape not in alike:
        raise UserError(
            f"--topology={hardware.name}: as {hardware.accelerator_type} Google Cloud would "
            f"create the shape {'x'.join(map(str, alike[0]))}; for another shape write --on=gke"
        )
