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
output of the hosts, and starts the job again after a preemption or a crash. With
--price_per_chip_hour it says what an hour and the run cost, for which a dry run compiles the step
too, unless --skip_plan is given. Ctrl-C ends this command and not the job; the same command follows
the job again. docs/launch_targets.md explains each target.

Exit codes: those of `switch_jax train`; also 2 if the job cannot be started, and 1 if it is
done and --release could not delete its slices.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import typing
from typing import TYPE_CHECKING, Any

from switch_jax.cli import data_flags, gin_flags
from switch_jax.exit_codes import DONE
from switch_jax.launch.console import log
from switch_jax.launch.target import Flag
from switch_jax.launch.targets import TARGETS
from switch_jax.storage import is_file
from switch_jax.utils.errors import UserError

if TYPE_CHECKING:  # it loads gin
    from switch_jax.config import Config
    from switch_jax.gin_config import GinConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    gin_flags.add_gin_flags(parser)
    data_flags.add_data_flags(parser)
    add = parser.add_argument
    add("--on", required=True, choices=tuple(TARGETS), help="where the job runs")
    for name, (type_, flag) in _target_flags().items():
        if type_ is bool:
            add(f"--{name}", action="store_true", help=flag.help)
            continue
        values, origin = typing.get_args(type_), typing.get_origin(type_)
        number = next((kind for kind in (int, float) if kind in (type_, *values)), None)
        options: dict[str, Any] = {"type": number} if number else {}
        if origin is tuple:
            options = {"action": "append"}
        if origin is typing.Literal:
            options = {"choices": values}
        add(f"--{name}", metavar=flag.metavar, help=flag.help, **options)
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


def _target_flags() -> dict[str, tuple[Any, Flag]]:
    """Returns the type and the `Flag` of each flag that a target takes, by name."""
    return {name: flag for target in TARGETS.values() for name, flag in target.flags().items()}


def main(args: argparse.Namespace) -> int:
    target = TARGETS[args.on]
    in_cloud = not target.sees_local_folders
    fields = _target_fields(args)
    gin_flags.announce_loading()
    found = gin_flags.read(args)
    config = found.config
    data_flags.apply(args)
    below: list[str] = []
    outside: list[str] = []
    if in_cloud:
        below, outside = _user_files(found)
        fields |= {"input_urls": _input_urls(args, config), "user_files": tuple(below)}
    else:
        from switch_jax.gin_config.teacher import with_teacher

        config = with_teacher(config)
    # `doctor` reads no data.
    given = [*gin_flags.as_arguments(args), *data_flags.as_arguments(args) * (not args.doctor)]
    given += ["--change_task"] * args.change_task
    job = target(arguments=tuple(given), model_dir=config.run.model_dir, **fields)
    warnings = job.check(config)
    if in_cloud:
        from switch_jax.launch import preflight  # loads JAX

        job = dataclasses.replace(job, host_bytes=preflight.host_bytes(config, job.hardware))
    if in_cloud and not args.skip_storage:
        from switch_jax.launch import task_files  # loads TensorFlow

        task_files.check(below, config)
    if config.distillation.teacher_dir is not None and config.teacher is None:
        log("the checks on this machine leave out TEACHER_DIR, which the hosts read")
    for warning in warnings:
        log(warning)
    for note in _notes(args, config, below, outside) if in_cloud else ():
        log(f"note: {note}")
    print(job.describe(), end="", flush=True)
    if not args.skip_storage:
        from switch_jax.launch import preflight

        preflight.check_storage(config)
    if args.dry_run:
        if in_cloud and not args.skip_plan:
            if args.price_per_chip_hour is None:
                log(
                    "note: a dry run does not look whether the step fits in the chips' memory; "
                    "`switch_jax plan` with the same gin files and --topology does"
                )
            else:
                job.plan(config)
        return DONE
    job.preflight(config, args.skip_plan)
    return job.run()


def _target_fields(args: argparse.Namespace) -> dict[str, Any]:
    """The job's fields from the flags; UserError where one is missing or of another target."""
    if args.doctor and args.change_task:
        raise UserError("--change_task is for training: leave it out with --doctor")
    target = TARGETS[args.on]
    given = {
        name: tuple(value) if isinstance(value, list) else value
        for name in _target_flags()
        if (value := getattr(args, name)) is not None and value is not False
    }
    if missing := [f"--{name}" for name in target.required_flags() if given.get(name, "") == ""]:
        raise UserError(f"--on={args.on} needs {' '.join(missing)}; see docs/launch_targets.md")
    if foreign := [f"--{name}" for name in given if name not in target.flags()]:
        raise UserError(f"--on={args.on} has no use for {' '.join(foreign)}: leave it out")
    if args.doctor:
        given |= {"subcommand": "doctor", "max_restarts": 0}  # what has failed once fails again
    return given


def _input_urls(args: argparse.Namespace, config: Config) -> tuple[tuple[str, str], ...]:
    """Returns `GoogleCloudTarget.input_urls`; a vocabulary on this machine is in the image."""
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


def _user_files(found: GinConfig) -> tuple[list[str], list[str]]:
    """The user's gin files, task modules and vocabulary: those below this folder, and others."""
    from switch_jax.gin_config.user_files import user_files

    files = user_files(found)
    vocabulary = os.path.expanduser(found.config.data.vocabulary or "")
    if "://" not in vocabulary and is_file(vocabulary):
        files.append(vocabulary)
    outside = [file for file in files if file[0] == "/" or ".." in file.split("/")]
    return [file for file in files if file not in outside], outside


def _notes(
    args: argparse.Namespace, config: Config, below: list[str], outside: list[str]
) -> list[str]:
    """Notes on what hosts in a cloud may lack: files of this machine, TFDS data sets, wandb."""
    from switch_jax.data.catalogue.registry import get_tasks

    why = "the hosts have no file of this machine: the image needs"
    built = "" if "@" in args.image else ", as the commands below build it"
    notes = [f"{why} {', '.join(below)}{built}"] if below else []
    if outside:
        notes.append(
            f"{why} {', '.join(outside)}, which the commands below do not copy: name files "
            "relative to a folder that has all of them, and start `launch` there"
        )
    has_folder = args.tfds_data_dir or any(v.startswith("TFDS_DATA_DIR=") for v in args.env or ())
    if not has_folder and not config.data.use_cached_tasks:
        tasks = get_tasks(config.data.mixture_or_task_name)
        loaders = ((task.name, getattr(task.source, "tfds_dataset", None)) for task in tasks)
        notes += [
            f"{task} reads the TFDS data set {loader.name}, which the hosts look for in their "
            "container: give --tfds_data_dir=gs://BUCKET/FOLDER"
            for task, loader in loaders
            if loader and loader.name and not loader.data_dir
        ][:1]
    if config.run.wandb_project is not None:
        notes.append("WANDB_PROJECT is set: the image needs wandb, which launch/Dockerfile lacks")
    return notes
