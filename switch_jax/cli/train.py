"""Pretrain or fine-tune a model that gin files describe.

    switch_jax train --gin_file=runs/demo_switch.gin
    switch_jax train --gin_file=models/switch_base.gin --gin_file=runs/pretrain.gin \\
        --gin.MODEL_DIR=/tmp/run --gin.MIXTURE_OR_TASK_NAME=english_span_corruption \\
        --gin.NUM_EXPERTS=8

Later files and values win. Files are looked for in the current directory, in --gin_search_paths,
and among the configs that come with switch_jax.

The same command continues from the last checkpoint in MODEL_DIR. SIGTERM, SIGHUP and Ctrl-C save a
checkpoint before the run stops; SIGUSR1 writes a profiler trace of five steps. On several hosts,
run the command on each of them with --multihost.

Exit codes: 0 done; 1 a fault of the storage or a lost host, which may be transient: start again;
2 a problem in the config or on the disk, which has to be fixed first; 75 stopped by SIGTERM or
SIGHUP: start again; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from typing import TYPE_CHECKING

from switch_jax.cli import data_flags, gin_flags, processes

if TYPE_CHECKING:  # gin_config loads gin
    from switch_jax.config import Config
    from switch_jax.gin_config import GinConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    gin_flags.add_gin_flags(parser)
    data_flags.add_data_flags(parser)
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="check the config and the run in MODEL_DIR, and print what your files and flags set, "
        "what would be done, and the config, with what set each macro",
    )
    parser.add_argument(
        "--change_task",
        action="store_true",
        help="go on with the run in MODEL_DIR on another MIXTURE_OR_TASK_NAME, or with other data "
        "files",
    )
    processes.add_process_flags(parser)


def main(args: argparse.Namespace) -> int:
    if not args.process_index:
        gin_flags.announce_loading()
    from switch_jax.runtime.host_memory import keep_freed_memory

    keep_freed_memory()  # before the configs import TensorFlow, which starts threads
    found = gin_flags.read(args)
    data_flags.apply(args)
    if args.dry_run:
        return _check(args, found)

    from switch_jax.trainer.status_file import record_early_failure

    with record_early_failure(found.config.run.model_dir):
        return _train(args, found)


def _check(args: argparse.Namespace, found: GinConfig) -> int:
    config = _connected(args, found)

    from switch_jax.trainer.start.dry_run import dry_run

    lines = dry_run(config, args.change_task)
    if settings := found.user_settings():
        print("# your files and flags set:")
    for setting in settings:
        print(textwrap.indent(setting, "#   "))
    for line in lines:
        if line.startswith("warning: "):
            print(f"switch_jax train: {line}", file=sys.stderr)
        else:
            print(f"# {line}")  # a comment, since the output is a gin file
    print(found.explained_text())
    return 0


def _train(args: argparse.Namespace, found: GinConfig) -> int:
    config = _connected(args, found)
    processes.enable_compilation_cache()

    from switch_jax.reports.run_status import loss_rise, read_status
    from switch_jax.runtime.multihost import is_first
    from switch_jax.trainer.signals import Stopped
    from switch_jax.trainer.train import train
    from switch_jax.utils.interrupts import raise_if_interrupted

    raise_if_interrupted()  # while modules were imported
    if found.note and is_first():
        print(found.note, flush=True)
    try:
        train(config, found.text, args.change_task)
    except Stopped as stopped:
        print(f"switch_jax train: {stopped}", file=sys.stderr)
        return stopped.exit_code
    if is_first():
        folder = config.run.model_dir
        print(
            f"checkpoints and metrics are in {folder}\n"
            f"  curves and numbers:  switch_jax report {folder}\n"
            f"  ask the model:       switch_jax infer {folder} --input=FILE"
        )
        if rise := read_status(folder).loss_rise:
            print(f"switch_jax train: warning: {loss_rise(*rise)}", file=sys.stderr)
    return 0


def _connected(args: argparse.Namespace, found: GinConfig) -> Config:
    """Joins the other processes, and adds the teacher's config, which all read or all refuse."""
    from switch_jax.gin_config.teacher import with_teacher

    processes.connect(args, found.config.mesh, found.text)

    if not processes.is_distributed():  # a mistake is reported before JAX is loaded
        return with_teacher(found.config)
    from switch_jax.runtime.multihost import run_on_all

    return run_on_all(lambda: with_teacher(found.config))
