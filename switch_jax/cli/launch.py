"""Start a run on this machine, on TPU VMs, on GKE or on Slurm; see every command first.

    switch_jax launch --on=local --process_count=2 --gin_file=runs/demo_switch.gin
    switch_jax launch --on=tpu-vm --topology=v5e-16 --zone=us-west4-a --project=my-project \\
        --image=us-docker.pkg.dev/my-project/images/switch_jax:1 --job_name=base \\
        --gin_file=models/switch_base_8.gin --gin_file=runs/pretrain.gin --gin.MESH_EXPERT=8 \\
        --gin.BATCH_SIZE=256 --tfds_data_dir=gs://my-bucket/tfds \\
        --gin.MODEL_DIR=gs://my-bucket/runs/base --gin.MIXTURE_OR_TASK_NAME=c4_span_corruption
    switch_jax launch --on=slurm --nodes=2 --gpus_per_node=8 --job_name=base ...
    switch_jax launch --on=tpu-vm --job_name=base-doctor --doctor ...  # look at the machines first

It checks the run, prints every command and file, and checks that MODEL_DIR can be written and the
data can be read. With --dry_run it ends there; with --skip_storage too it needs no account or
network, unless the model is that of an INITIAL_CHECKPOINT_PATH in a bucket. Otherwise it compiles
the training step to see whether it fits (some minutes, on TPUs alone), starts the job, prints the
output of the hosts, and starts the job again after a preemption or a crash. Ctrl-C ends this
command and not the job; the same command follows the job again. docs/launching.md explains each
target.

Exit codes: those of `switch_jax train`; also 2 if the job cannot be started.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from typing import TYPE_CHECKING

from switch_jax.cli import data_flags, gin_flags
from switch_jax.errors import UserError
from switch_jax.launch.console import log
from switch_jax.launch.targets import TARGETS
from switch_jax.launch.variables import without_value
from switch_jax.storage import is_file

if TYPE_CHECKING:  # it loads gin
    from switch_jax.config import Config
    from switch_jax.gin_config import GinConfig

_MAX_RESTARTS = 1_000_000  # JobSet counts them in 32 bits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `train` that describe the run, and those of the targets."""
    gin_flags.add_gin_flags(parser)
    data_flags.add_data_flags(parser)
    add = parser.add_argument
    add("--on", required=True, choices=tuple(TARGETS), help="where the job runs")
    add("--process_count", type=int, metavar="N", help="processes of --on=local (default 2)")
    add("--topology", metavar="SLICE", help="for example v5e-16, or 4xv5e-256 for 4 slices")
    add("--job_name", metavar="NAME", help="of the job, and of what is created for it")
    add("--project", metavar="ID", help="project of Google Cloud")
    add("--zone", metavar="ZONE", help="for example us-central1-a")
    add("--image", metavar="IMAGE", help="container image with its tag; see docs/launching.md")
    add("--nodes", type=int, metavar="N", help="machines of --on=slurm")
    add("--gpus_per_node", type=int, metavar="N", help="GPUs of each, one process a GPU")
    add(
        "--sbatch_option",
        action="append",
        metavar="OPTION",
        help="an option of sbatch, as --sbatch_option=--partition=a100; repeat it",
    )
    add("--cluster", metavar="NAME", help="cluster of --on=gke and xpk")
    add("--service_account", metavar="NAME", help="account of the job (default: the project's)")
    add("--spot", action="store_true", help="use cheaper capacity that may be taken away")
    add("--reserved", action="store_true", help="use capacity that the project has reserved")
    add(
        "--max_restarts",
        type=int,
        metavar="N",
        help="how often to start again after crashes without a new checkpoint (default 3; on xpk "
        "with --spot 100)",
    )
    add(
        "--env",
        action="append",
        metavar="NAME=VALUE",
        help="an environment variable of the hosts; repeat it",
    )
    add(
        "--secret",
        action="append",
        metavar="NAME",
        help="one whose value is kept in the cloud, as WANDB_API_KEY; repeat it",
    )
    add("--network", metavar="NAME", help="network of TPU VMs (default: default)")
    add("--subnetwork", metavar="NAME", help="subnetwork of TPU VMs")
    add("--internal_ips", action="store_true", help="TPU VMs without addresses on the internet")
    add(
        "--change_task",
        action="store_true",
        help="as of `switch_jax train`: go on with the run in MODEL_DIR on other data",
    )
    add(
        "--doctor",
        action="store_true",
        help="run `switch_jax doctor` on every host in place of `train`",
    )
    add(
        "--dry_run",
        action="store_true",
        help="print the commands, check MODEL_DIR and the data, and start nothing",
    )
    add("--skip_plan", action="store_true", help="do not check that the training step fits")
    add(
        "--skip_storage",
        action="store_true",
        help="do not check that hosts find the files of the task, and that this machine can write "
        "to MODEL_DIR and read the data",
    )


def main(args: argparse.Namespace) -> int:
    """Checks the run, shows what will be done, and does it unless --dry_run is given."""
    target = TARGETS[args.on]
    in_cloud = not target.sees_local_folders
    _check_flags(args)
    gin_flags.say_that_it_loads()
    found = gin_flags.read(args)
    config = found.config
    if not in_cloud:
        from switch_jax.gin_config.teacher import with_teacher

        config = with_teacher(config)
    data_flags.apply(args)
    if args.doctor:
        args.max_restarts = 0  # what has failed once fails again
    job = target.job(args, _train_arguments(args), config)
    if args.doctor:
        job = dataclasses.replace(job, subcommand="doctor")
    below, outside = _own_files(found) if in_cloud else ([], [])
    if in_cloud:
        job = dataclasses.replace(job, own_files=tuple(below))
    warnings = target.check(job, config)
    if in_cloud and not args.skip_storage:
        from switch_jax.launch import task_files  # loads TensorFlow

        validation = ["validation"] if config.run.eval_period is not None else []
        task_files.check(job, config.data, [config.data.split, *validation])
    if config.distillation.teacher_dir is not None and config.teacher is None:
        log("the checks on this machine leave out TEACHER_DIR, which the hosts read")
    for warning in warnings:
        log(warning)
    for note in _notes(args, config, below, outside) if in_cloud else ():
        log(f"note: {note}")
    print(target.describe(job), end="", flush=True)
    if not args.skip_storage:
        from switch_jax.launch import preflight  # loads JAX

        preflight.check_storage(config)
    if args.dry_run:
        if in_cloud and not args.skip_plan:
            log(
                "note: a dry run does not look whether the step fits in the chips' memory; "
                "`switch_jax plan` with the same gin files and --topology does"
            )
        return 0
    target.preflight(job, config, args.skip_plan)
    return target.run(job)


def _own_files(found: GinConfig) -> tuple[list[str], list[str]]:
    """The user's gin files, task modules and vocabulary: in or below this folder; others."""
    from switch_jax.gin_config.own_files import own_files

    own = own_files(found)
    vocabulary = os.path.expanduser(found.config.data.vocabulary or "")
    if "://" not in vocabulary and is_file(vocabulary):
        own.append(vocabulary)
    outside = [file for file in own if file[0] == "/" or ".." in file.split("/")]
    return [file for file in own if file not in outside], outside


def _notes(
    args: argparse.Namespace, config: Config, below: list[str], outside: list[str]
) -> list[str]:
    """What hosts in a cloud may lack, which this machine has: files, data sets of TFDS, wandb."""
    from switch_jax.data.registry import tasks_of

    why = "the hosts have no file of this machine: the image needs"
    built = "" if "@" in args.image else ", as the commands below build it"
    notes = [f"{why} {', '.join(below)}{built}"] if below else []
    if outside:
        notes.append(
            f"{why} {', '.join(outside)}, which the commands below do not copy: name files "
            "relative to a folder that has all of them, and start `launch` there"
        )
    has_folder = args.tfds_data_dir or any(v.startswith("TFDS_DATA_DIR=") for v in args.env or ())
    tasks = [] if config.data.use_cached_tasks else tasks_of(config.data.mixture_or_task_name)
    for task in tasks if not has_folder else ():
        loader = getattr(task.source, "tfds_dataset", None)
        if loader and loader.name and not loader.data_dir:
            notes.append(
                f"{task.name} reads the TFDS data set {loader.name}, which the hosts look for "
                "in their container: give --tfds_data_dir=gs://BUCKET/FOLDER"
            )
            break
    if config.run.wandb_project is not None:
        notes.append("WANDB_PROJECT is set: the image needs wandb, which launch/Dockerfile lacks")
    return notes


def _train_arguments(args: argparse.Namespace) -> list[str]:
    own = ["--change_task"] if args.change_task else []
    data = [] if args.doctor else data_flags.as_arguments(args)  # it reads none
    return [*gin_flags.as_arguments(args), *data, *own]


def _check_flags(args: argparse.Namespace) -> None:
    """Raises UserError if a flag is missing, is for another target, or has a wrong value."""
    if args.doctor and args.change_task:
        raise UserError("--change_task is for training: leave it out with --doctor")
    target = TARGETS[args.on]
    missing = [f"--{name}" for name in target.required_flags if getattr(args, name) in (None, "")]
    if missing:
        raise UserError(f"--on={args.on} needs {' '.join(missing)}; see docs/launching.md")
    _check_no_flags_of_others(args)
    if not 0 <= (args.max_restarts or 0) <= _MAX_RESTARTS:
        raise UserError(f"--max_restarts={args.max_restarts}: write 0 to {_MAX_RESTARTS:,}")
    for argument in _train_arguments(args):
        _check_argument(argument, repr(argument))
    for variable in args.env or ():
        _check_argument(variable, f"--env={without_value(variable)}")


def _check_no_flags_of_others(args: argparse.Namespace) -> None:
    """Raises UserError if a flag is given that only other targets take."""
    takes = {name: {*t.required_flags, *t.optional_flags} for name, t in TARGETS.items()}
    of_others = set().union(*takes.values()) - takes[args.on]
    given = [name for name, value in vars(args).items() if value is not None and value is not False]
    foreign = [name for name in given if name in of_others]
    if foreign:
        flags = " ".join(f"--{name}" for name in foreign)
        raise UserError(f"--on={args.on} has no use for {flags}: leave it out")


def _check_argument(argument: str, shown: str) -> None:
    """Raises UserError, which names it as `shown`, if no program or manifest takes the argument."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise UserError(f"{shown}: this is not UTF-8; write it in UTF-8") from None
    if "\0" in argument:
        raise UserError(f"{shown}: no argument of a program holds a NUL character")
