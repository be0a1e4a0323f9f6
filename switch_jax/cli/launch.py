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

from switch_jax.cli import data_flags, gin_flags
from switch_jax.errors import UserError
from switch_jax.launch.console import log
from switch_jax.launch.targets import TARGETS
from switch_jax.paths import bucket_path

_MOST_RESTARTS = 1_000_000  # JobSet counts them in 32 bits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `train` that describe the run, and those that say where it goes."""
    gin_flags.add_gin_flags(parser)
    data_flags.add_data_flags(parser)
    where = parser.add_argument
    where("--on", required=True, choices=tuple(TARGETS), help="what the job runs on")
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
    """Checks the run, shows what will be done, and does it unless --dry_run is given."""
    target = TARGETS[args.on]
    _check_flags(args)
    if not args.dry_run:
        log("reading the config")
    parts = gin_flags.build(args)
    data_flags.apply(args)
    job = target.job(args, _train_arguments(args), parts["run"])
    target.check(job, parts)
    print(target.describe(job), end="", flush=True)
    if args.dry_run:
        return 0
    target.preflight(job, parts, args.skip_storage, args.skip_plan)
    return target.run(job)


def _train_arguments(args: argparse.Namespace) -> list[str]:
    return [*gin_flags.as_arguments(args), *data_flags.as_arguments(args)]


def _check_flags(args: argparse.Namespace) -> None:
    """Raises UserError where flags are missing, are for another target, or have wrong values."""
    target = TARGETS[args.on]
    missing = [f"--{name}" for name in target.required_flags if not getattr(args, name)]
    if missing:
        raise UserError(f"--on={args.on} needs {' '.join(missing)}; see docs/launching.md")
    _check_no_flags_of_others(args)
    if not 0 <= args.max_restarts <= _MOST_RESTARTS:
        raise UserError(f"--max_restarts={args.max_restarts}: write 0 to {_MOST_RESTARTS:,}")
    for argument in _train_arguments(args):
        _check_argument(argument)
    if not target.sees_local_folders:
        _check_data("--tfds_data_dir", args.tfds_data_dir or "")
        for folder in args.seqio_additional_cache_dirs.split(","):
            _check_data("--seqio_additional_cache_dirs", folder)


def _check_no_flags_of_others(args: argparse.Namespace) -> None:
    """Raises UserError if a flag is given that only other targets take."""
    takes = {name: {*t.required_flags, *t.optional_flags} for name, t in TARGETS.items()}
    of_others = set().union(*takes.values()) - takes[args.on]
    given = [name for name, value in vars(args).items() if value is not None and value is not False]
    foreign = [name for name in given if name in of_others]
    if foreign:
        flags = " ".join(f"--{name}" for name in foreign)
        takers = " or ".join(name for name in takes if takes[name].issuperset(foreign))
        for_takers = f" (it is for --on={takers})" if takers else ""
        raise UserError(f"--on={args.on} has no use for {flags}{for_takers}: leave it out")


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
