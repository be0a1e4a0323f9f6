"""Describe a run once, see what will happen, and start it: here, on TPU VMs, or on GKE.

    switch_jax launch --on=local --process_count=2 --gin_file=runs/demo_switch.gin
    switch_jax launch --on=tpu-vm --topology=v5e-16 --zone=us-west4-a --project=my-project \\
        --image=us-docker.pkg.dev/my-project/images/switch_jax:1 --job_name=base \\
        --gin_file=models/switch_base.gin --gin_file=runs/pretrain.gin \\
        --gin.MODEL_DIR=gs://my-bucket/runs/base --gin.MIXTURE_OR_TASK_NAME=c4_span_corruption

It checks the run and prints every command and file; with --dry_run nothing follows, and no cloud
tool or account is needed. Then it looks whether data and MODEL_DIR can be reached, compiles the
training step to see whether it fits (minutes), starts the job, prints what the hosts print, and
starts it again after a preemption or a crash. Ctrl-C ends this command and not the job; the same
command follows it again.
docs/launching.md explains each target.

Exit codes: those of `switch_jax train`; 2 also where the job cannot be started.
"""

import argparse
import importlib
import sys
from typing import Any

from switch_jax.cli import data_flags, gin_flags
from switch_jax.errors import UserError
from switch_jax.paths import bucket_path

# By --on; each has `steps`, `afterwards` and `run`.
_CLOUD = {"tpu-vm": "tpu_vm", "queued-resource": "queued_resource", "gke": "gke", "xpk": "xpk"}
_MOST_RESTARTS = 1_000_000  # JobSet counts them in 32 bits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `train` that describe the run, and those that say where it goes."""
    gin_flags.add_gin_flags(parser)
    data_flags.add_data_flags(parser)
    where = parser.add_argument
    where("--on", required=True, choices=("local", *_CLOUD), help="what the job runs on")
    where("--process_count", type=int, metavar="N", help="processes of --on=local (default 2)")
    where("--topology", metavar="SLICE", help="as v5e-16, v5p-256; several slices as 4xv5e-256")
    where("--job_name", metavar="NAME", help="of the job, and of what is made for it")
    where("--project", metavar="ID", help="of Google Cloud")
    where("--zone", metavar="ZONE", help="as us-central1-a")
    where("--image", metavar="IMAGE", help="the container's, with its tag; see docs/launching.md")
    where("--cluster", metavar="NAME", help="of --on=gke and xpk")
    where(
        "--service_account", metavar="NAME", help="what the job acts as; default: the default one"
    )
    where("--spot", action="store_true", help="cheaper capacity that may be taken away")
    where("--reserved", action="store_true", help="capacity from the project's reservation")
    where(
        "--max_restarts",
        type=int,
        default=3,
        metavar="N",
        help="most starts after a crash, without a new checkpoint between them (default 3)",
    )
    where("--dry_run", action="store_true", help="print the commands and run nothing")
    where("--skip_plan", action="store_true", help="start without asking whether the step fits")
    where(
        "--skip_storage",
        action="store_true",
        help="start without asking whether data can be read and MODEL_DIR be written, from here, "
        "and whether its bucket is of the right kind",
    )


def main(args: argparse.Namespace) -> int:
    """Checks the run, shows the steps, and takes them unless --dry_run is given."""
    from switch_jax.launch.console import log

    _check_flags(args)
    if not args.dry_run:
        log("reading the config")
    parts = gin_flags.build(args)
    data_flags.apply(args)
    train = [*gin_flags.as_arguments(args), *data_flags.as_arguments(args)]

    from switch_jax.launch import local, preflight, setup_commands
    from switch_jax.launch.commands import check_programs, render, shell_line

    if args.on == "local":
        count = 2 if args.process_count is None else args.process_count
        preflight.check_rehearsal(parts, count)
        return local.run(train, parts["run"].model_dir, count, args.max_restarts, args.dry_run)
    job = _job(args, train, parts["run"])
    preflight.check(parts, job.hardware)
    target = importlib.import_module(f"switch_jax.launch.{_CLOUD[args.on]}")
    title = f"{job.name}: {job.hardware.chips} chips, {job.hardware.hosts} hosts ({job.topology})"
    look = [*setup_commands.steps(job), preflight.ask_bucket_layout(job)]
    steps = [*look, *target.steps(job), *target.afterwards(job)]
    print(render(title, steps), end="", flush=True)
    if args.dry_run:
        return 0
    check_programs(target.steps(job))
    if not args.skip_storage:
        preflight.check_bucket(job)
        preflight.check_storage(parts)
    if not args.skip_plan:
        log(f"compiling the step for {job.topology}, which takes some minutes")
        log(preflight.check_fits(parts, job.hardware))
    try:
        return target.run(job)
    except KeyboardInterrupt as stop:
        print(file=sys.stderr)
        end = shell_line(target.afterwards(job)[0].argv)
        phase = stop.args[0] if stop.args else f"goes on; `{end}` ends it"
        log(f"{job.name} {phase}; the same command follows it again")
        raise


def _check_flags(args: argparse.Namespace) -> None:
    """Raises UserError where flags are missing, or are for another target."""
    needed = ("topology", "job_name", "project", "zone", "image")
    cloud = (*needed, "cluster", "service_account", "spot", "reserved")
    in_cloud = args.on in _CLOUD
    missing = [f"--{name}" for name in needed if in_cloud and not getattr(args, name)]
    if missing:
        raise UserError(f"--on={args.on} needs {' '.join(missing)}; see docs/launching.md")
    foreign = [name for name in cloud if getattr(args, name)] if not in_cloud else []
    if in_cloud and args.process_count is not None:
        foreign = ["process_count"]
    if foreign:
        flags = " ".join(f"--{name}" for name in foreign)
        raise UserError(f"--on={args.on} has no use for {flags}: leave it out")
    if not 0 <= args.max_restarts <= _MOST_RESTARTS:
        raise UserError(f"--max_restarts={args.max_restarts}: write 0 to {_MOST_RESTARTS:,}")
    for argument in [*gin_flags.as_arguments(args), *data_flags.as_arguments(args)]:
        _check_argument(argument)
    if in_cloud:
        _check_data("--tfds_data_dir", args.tfds_data_dir or "")
        for folder in args.seqio_additional_cache_dirs.split(","):
            _check_data("--seqio_additional_cache_dirs", folder)


def _check_argument(argument: str) -> None:
    """Raises UserError where it cannot be handed to a program, or written to a manifest."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise UserError(f"{argument!r}: this is not UTF-8; write it in UTF-8") from None
    if "\0" in argument:
        raise UserError(f"{argument!r}: no argument of a program holds a NUL character")


def _check_data(flag: str, folder: str) -> None:
    """Raises UserError where hosts of a cloud do not see the folder."""
    if folder.startswith("gs://"):
        bucket_path(folder, flag)
    elif folder:
        raise UserError(
            f"{flag} {folder!r}: the hosts see no folder of this machine and read data from Google "
            "Cloud's buckets alone: copy the data to one, and write gs://BUCKET/FOLDER"
        )


def _job(args: argparse.Namespace, train: list[str], run: Any) -> Any:
    """The job that the flags and the config describe."""
    from switch_jax.launch.job import Job

    return Job(
        on=args.on,
        name=args.job_name,
        train=tuple(train),
        model_dir=run.model_dir,
        topology=args.topology,
        project=args.project,
        zone=args.zone,
        image=args.image,
        initial_checkpoint=run.initial_checkpoint,
        cluster=args.cluster,
        service_account=args.service_account,
        spot=args.spot,
        reserved=args.reserved,
        max_restarts=args.max_restarts,
    )
