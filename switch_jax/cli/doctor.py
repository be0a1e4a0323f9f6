"""Check whether this machine computes the right thing, and how fast it is.

    switch_jax doctor                                  # some minutes
    switch_jax doctor --quick                          # about a minute
    switch_jax doctor --gin_file=models/switch_base.gin --gin_file=runs/pretrain.gin \\
        --gin.MODEL_DIR=gs://my-bucket/run --gin.MESH_EXPERT=8 --output=doctor.json

Without gin files it takes Switch-Base on TPUs and GPUs, in the size that fits, and the demo's model
on CPUs. Each check is a line: its verdict, its numbers and, where it has failed, what to do. One
that fails does not stop the others. On several hosts, run the command on each of them with
--multihost, or let `switch_jax launch --doctor` do so.

Exit codes: 0; 1: a check has failed; 2: a mistake in the flags or the config.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from switch_jax.cli import data_flags, gin_flags, multihost
from switch_jax.errors import UserError
from switch_jax.storage import check_writable, explain_write_errors, storage_path

if TYPE_CHECKING:  # it loads gin
    from switch_jax.gin_config import GinConfig

FAILED = 1
_DEFAULTS = ("MODEL_DIR=runs/doctor", "MIXTURE_OR_TASK_NAME=english_span_corruption")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The config whose mesh and step are taken, what is left out, and where results go."""
    gin_flags.add_gin_flags(parser)
    data_flags.add_data_flags(parser)
    parser.add_argument("--quick", action="store_true", help="leave out what takes long")
    parser.add_argument(
        "--output",
        metavar="FILE.json",
        help="also write what was found, for plan --measured, and beside it a page, FILE.html",
    )
    multihost.add_process_flags(parser)


def main(args: argparse.Namespace) -> int:
    """Runs the checks, and prints a line for each; returns 0 or FAILED."""
    output = storage_path(args.output, "--output") if args.output else None
    if output is not None:
        if output.suffix != ".json":
            raise UserError(f"--output={args.output}: give a file that ends in .json")
        with explain_write_errors(output):
            output.parent.mkdir(parents=True, exist_ok=True)
        check_writable(output.parent, f"--output={args.output}")
    from switch_jax.runtime.host_memory import keep_freed_memory

    keep_freed_memory()  # before anything starts threads
    by_default = not args.gin_file
    found = _config(args)
    if data_flags.as_arguments(args):  # loads TensorFlow
        data_flags.apply(args)

    import jax

    from switch_jax.doctor.all_checks import all_checks
    from switch_jax.doctor.checks import Verdict, run_checks
    from switch_jax.doctor.page import summary
    from switch_jax.doctor.results import write_results
    from switch_jax.partitioning.mesh import make_mesh
    from switch_jax.runtime.processes import is_first
    from switch_jax.train_step.microbatches import check_batch

    mesh = make_mesh(found.config.mesh)
    check_batch(found.config, mesh.shape)
    findings = []
    try:
        with jax.set_mesh(mesh):
            checks = all_checks(found.config, found.text, mesh, shrink=by_default)
            for finding in run_checks(checks, quick=args.quick):
                findings.append(finding)
                if is_first():
                    print(finding, flush=True)
    finally:  # also of what was found before a host was lost
        if is_first() and findings:
            print(summary(findings))
            if args.quick:
                print("--quick has left out the time of a step: leave it out to know that, too")
        if is_first() and findings and output is not None:
            write_results(output, found.text, mesh, findings)
            print(f"written: {output}, and as a page {output.with_suffix('.html')}")
    return FAILED if any(f.verdict == Verdict.FAILED for f in findings) else 0


def _config(args: argparse.Namespace) -> GinConfig:
    """That of the gin files, or the default for these devices; joins the other processes."""
    from switch_jax.config import MeshConfig
    from switch_jax.runtime.host_memory import only_cpus

    by_default, own_flags = not args.gin_file, f"--quick: {args.quick}"  # the same on all
    if by_default and not only_cpus():
        multihost.connect(args, MeshConfig(), own_flags)
        args.gin_file = ["models/switch_base.gin", "runs/pretrain.gin"]
        args.gin_bindings = [*_DEFAULTS, *_switch_base_macros(), *args.gin_bindings]
    elif by_default:
        args.gin_file = ["models/switch_demo.gin", "runs/demo.gin"]
        args.gin_bindings = [*_DEFAULTS, *args.gin_bindings]
    found = gin_flags.read(args, ("INITIAL_CHECKPOINT_PATH",))
    if found.config.distillation.teacher_dir is not None:
        raise UserError(
            "TEACHER_DIR is set, and doctor measures steps without a teacher: leave it out"
        )
    if not multihost.joined():
        multihost.connect(args, found.config.mesh, f"{own_flags}\n{found.text}")
    return found


def _switch_base_macros() -> list[str]:
    """Switch-Base with at least an expert a device, which all exchange tokens within a slice."""
    import jax

    from switch_jax.doctor.layers import experts_over
    from switch_jax.hardware import num_slices

    devices = jax.devices()
    if devices[0].platform == "cpu":
        raise UserError(
            "this machine has an accelerator, and JAX finds none: see docs/install.md, or set "
            "JAX_PLATFORMS=cpu to look at the CPUs"
        )
    experts = len(devices) // num_slices(devices)
    return [
        f"MESH_EXPERT={experts}",
        f"NUM_EXPERTS={experts_over(experts)}",
        f"BATCH_SIZE={16 * len(devices)}",
        "GROUP_SIZE=512",  # a row, so that the batch can be halved
        "DECODER_GROUP_SIZE=114",
        "DATA_STREAMS=1",
        "SCAN_LAYERS=True",  # compiles several times faster
    ]
