"""What all targets on TPUs of Google Cloud share."""

import abc
import argparse
from collections.abc import Sequence

from switch_jax.config import Config
from switch_jax.errors import UserError
from switch_jax.hardware import Slice, parse_slice
from switch_jax.launch import setup_commands
from switch_jax.launch.commands import Command, Step, check_programs, render, shell_line
from switch_jax.launch.console import going_on, log
from switch_jax.launch.job import Job
from switch_jax.launch.target import Target
from switch_jax.units import counted


class GoogleCloudTarget(Target[Job]):
    """A target on TPUs of Google Cloud, but for what differs between them."""

    required_flags: tuple[str, ...] = ("topology", "job_name", "project", "zone", "image")
    optional_flags: tuple[str, ...] = ("service_account", "spot", "reserved", "env", "secret")
    sees_local_folders = False

    @abc.abstractmethod
    def check_job(self, job: Job) -> None:
        """Raises UserError if this target cannot run the job, whatever the config is."""

    @abc.abstractmethod
    def resources(self, job: Job) -> list[Command]:
        """Commands that a person runs once for this target, for example to create a cluster."""

    @abc.abstractmethod
    def commands(self, job: Job) -> list[Step]:
        """The commands and files of `start_and_follow`, in the order in which it uses them."""

    @abc.abstractmethod
    def afterwards(self, job: Job) -> list[Command]:
        """Commands that a person runs to end the job (the first one), and to stop paying."""

    @abc.abstractmethod
    def start_and_follow(self, job: Job) -> int:
        """As `run`, which adds what is printed after Ctrl-C."""

    def job(self, args: argparse.Namespace, train: Sequence[str], config: Config) -> Job:
        job = Job(
            name=args.job_name,
            train=tuple(train),
            model_dir=config.run.model_dir,
            topology=args.topology,
            project=args.project,
            zone=args.zone,
            image=args.image,
            reads=_reads(args, config),
            cluster=args.cluster,
            service_account=args.service_account,
            spot=args.spot,
            reserved=args.reserved,
            max_restarts=self.max_restarts(args),
            env=tuple(args.env or ()),
            secrets=tuple(args.secret or ()),
            network=args.network,
            subnetwork=args.subnetwork,
            internal_ips=args.internal_ips,
        )
        self.check_job(job)
        return job

    def check(self, job: Job, config: Config) -> list[str]:
        from switch_jax.launch import preflight  # loads JAX

        return preflight.check(config, job.hardware)

    def setup(self, job: Job) -> list[Command]:
        """Commands that a person runs once, in a checkout of switch_jax."""
        return [*self.resources(job), *setup_commands.image(job)]

    def describe(self, job: Job) -> str:
        slices = job.hardware
        size = f"{counted(slices.chips, 'chip')}, {counted(slices.hosts, 'host')}"
        title = f"{job.name}: {size} ({job.topology})"
        return render(title, [*self.setup(job), *self.commands(job), *self.afterwards(job)])

    def preflight(self, job: Job, config: Config, skip_plan: bool) -> None:
        from switch_jax.launch import preflight

        check_programs(self.commands(job))
        if not skip_plan:
            log(f"compiling the step for {job.topology}, which takes some minutes")
            log(preflight.check_fits(config, job.hardware))

    def run(self, job: Job) -> int:
        with going_on(job.name, shell_line(self.afterwards(job)[0].argv)):
            return self.start_and_follow(job)


def _reads(args: argparse.Namespace, config: Config) -> tuple[tuple[str, str], ...]:
    """See `Job.reads`. A vocabulary that is a file of this machine goes into the image."""
    vocabulary = config.data.vocabulary or ""
    named = [
        ("INITIAL_CHECKPOINT_PATH", config.run.initial_checkpoint_path),
        ("TEACHER_DIR", config.distillation.teacher_dir),
        ("VOCABULARY", vocabulary if "://" in vocabulary else None),
        ("--tfds_data_dir", args.tfds_data_dir),
        *(("--gin_file", file) for file in args.gin_file if "://" in file),
    ]
    caches = args.seqio_additional_cache_dirs.split(",")
    named += [("--seqio_additional_cache_dirs", folder) for folder in caches]
    return tuple((name, url) for name, url in named if url)


def check_usual_shape(hardware: Slice) -> None:
    """Raises UserError if the accelerator type stands for a slice of another shape.

    For targets that ask for slices by their accelerator type, which says nothing of the shape.
    """
    generation = hardware.generation
    usual = [parse_slice(f"{generation.name}:{shape}") for shape in generation.shapes]
    alike = [s.topology for s in usual if s.accelerator_type == hardware.accelerator_type]
    if alike and hardware.topology not in alike:
        raise UserError(
            f"--topology={hardware.name}: as {hardware.accelerator_type} Google Cloud would "
            f"create the shape {alike[0]}; for another shape write --on=gke"
        )
