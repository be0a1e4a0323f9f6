"""Plan the memory and time of a training step on a TPU slice, without a TPU.

GPUs are planned, too, for their memory alone: --topology=h100-8. With --measured=doctor.json, which
`switch_jax doctor --output=doctor.json` has written on such devices, times are corrected by what
was measured there; only then GPUs and CPUs (--topology=cpu-8) have a time.

    switch_jax plan --gin_file=models/switch_base.gin --gin_file=runs/pretrain.gin \\
        --topology=v5p-256 --mesh=1,128,1
    switch_jax plan --gin_file=models/switch_large.gin --gin_file=runs/pretrain.gin \\
        --topology=v5p-256 --search

The training step is compiled for the slice by the TPU's compiler on this machine, which takes some
minutes; for GPUs by XLA's. Exit codes: 0 the step fits in memory; 3 it does not; 2 a mistake in the
flags or the config.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from switch_jax.cli import gin_flags
from switch_jax.config import Config
from switch_jax.errors import FieldError, UserError
from switch_jax.gpus import GpuCluster, is_gpu_name, parse_cluster
from switch_jax.hardware import Cpus, Slice, parse_cpus, parse_slice
from switch_jax.planning.measured import Measured, read_measured
from switch_jax.storage import check_writable, storage_path
from switch_jax.terminal import seconds_shown
from switch_jax.units import counted

if TYPE_CHECKING:  # they load JAX
    from switch_jax.planning.plan import Plan
    from switch_jax.planning.step_plan import StepPlan

Hardware = Slice | GpuCluster | Cpus

DOES_NOT_FIT = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The slice, the mesh, and the form of the output."""
    gin_flags.add_gin_flags(parser)
    parser.add_argument(
        "--topology",
        required=True,
        metavar="SLICE",
        help="for example v3-32, v5e-256, v5p-256; several slices as 2xv5e-256; GPUs as h100-8; "
        "CPUs, with --measured, as cpu-8",
    )
    parser.add_argument(
        "--measured",
        metavar="FILE",
        help="take what `switch_jax doctor --output=FILE` measured on such devices",
    )
    parser.add_argument(
        "--mesh",
        metavar="DATA,EXPERT,MODEL",
        help="sizes of the mesh axes, for example 1,128,1; default: those of the gin files",
    )
    parser.add_argument(
        "--search",
        nargs="?",
        type=int,
        const=4,
        metavar="N",
        help="compile the N most promising meshes (default 4) and rank them",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--picture", metavar="FILE", help="write a chart of memory and time, as PNG or SVG"
    )


def main(args: argparse.Namespace) -> int:
    """Plans; returns 0 or DOES_NOT_FIT."""
    hardware = _hardware(args)
    measured = read_measured(args.measured) if args.measured else None
    config = _config(args, hardware)

    from switch_jax.planning import picture, plan_text

    searched = []
    if args.search and isinstance(hardware, Slice):
        searched = _searched(config, hardware, args.search, measured)
        best: StepPlan = searched[0]
    else:
        best = _planned(config, hardware, f"the step for {hardware.name}", measured)
    advice = None if best.fits else _nearest_change(config, hardware, best, measured)
    if args.json:
        result = best.as_json() | ({} if best.fits else {"nearest_change": advice})
        if searched:
            result["search"] = [plan.as_json() for plan in searched]
        print(json.dumps(result, indent=2))
    else:
        if searched:
            print(plan_text.ranking(searched))
        print(plan_text.table(best))
        if not best.fits:
            print(f"nearest change that fits: {advice or 'none of those tried'}")
    if args.picture:
        picture.draw(searched or [cast("Plan", best)], args.picture)  # refused with GPUs
        print(f"picture: {args.picture}", file=sys.stderr)
    return 0 if best.fits else DOES_NOT_FIT


def _hardware(args: argparse.Namespace) -> Hardware:
    """What is planned for; raises UserError on flags that do not go with it."""
    hardware: Hardware | None = parse_cpus(args.topology)
    if hardware is None:
        hardware = _parse_accelerators(args.topology)
    if args.search is not None and (_mesh(args.mesh) or args.search < 1):
        raise UserError("--search takes a number of at least 1, and excludes --mesh")
    if not isinstance(hardware, Slice) and (args.search or args.picture):
        raise UserError(
            f"--topology={args.topology}: leave out --search and --picture, which are for TPUs"
        )
    _check_picture(args.picture)
    return hardware


def _parse_accelerators(name: str) -> Slice | GpuCluster:
    if is_gpu_name(name):
        return parse_cluster(name)
    try:
        return parse_slice(name)
    except UserError as error:
        raise UserError(f"{error}; GPUs are named as in h100-8, CPUs as in cpu-8") from None


def _config(args: argparse.Namespace, hardware: Hardware) -> Config:
    from switch_jax.gin_config.teacher import with_teacher

    mesh = _mesh(args.mesh)
    unneeded = ("MODEL_DIR", "MIXTURE_OR_TASK_NAME", "INITIAL_CHECKPOINT_PATH")
    config = gin_flags.read(args, unneeded).config
    config = with_teacher(config, gin_flags.search_paths(args))
    try:
        config = config.replace("mesh", **mesh)
    except FieldError as error:
        raise UserError(f"--mesh={args.mesh}: {error}") from error
    count = math.prod(mesh.values())
    if mesh and count != hardware.devices:
        raise UserError(
            f"--mesh={args.mesh}: data x expert x model = {' x '.join(map(str, mesh.values()))} = "
            f"{count}, but {hardware.name} has {counted(hardware.devices, 'device')}; the three "
            f"must multiply up to {hardware.devices}"
        )
    from switch_jax.trainer.prepare import check_run  # loads JAX

    for warning in check_run(config, hardware.hosts if isinstance(hardware, Slice) else 1):
        print(f"switch_jax plan: {warning}", file=sys.stderr)
    return config


def _planned(config: Config, hardware: Hardware, what: str, measured: Measured | None) -> StepPlan:
    """The plan for the config's mesh; `what` is compiled, in words."""
    from switch_jax.partitioning.mesh import MeshError
    from switch_jax.planning.cpu_plan import make_cpu_plan
    from switch_jax.planning.gpu_plan import make_gpu_plan
    from switch_jax.planning.plan import make_plan

    try:
        with _compiling(what):
            if isinstance(hardware, Cpus):
                return make_cpu_plan(config, hardware, measured)
            if isinstance(hardware, GpuCluster):
                return make_gpu_plan(config, hardware, measured)
            return make_plan(config, hardware, measured)
    except MeshError as error:
        raise UserError(f"{error}, or give --mesh=DATA,EXPERT,MODEL") from error


def _searched(
    config: Config, hardware: Slice, number: int, measured: Measured | None
) -> list[Plan]:
    """The plans of the `number` most promising meshes, the fastest that fits first."""
    from switch_jax.planning import plan_text
    from switch_jax.planning.search import ranked, search

    plans = []
    for plan in search(config, hardware, number, _compiling, measured):
        plans.append(plan)
        print(f"  {plan_text.in_short(plan)}", file=sys.stderr, flush=True)
    return ranked(plans)


def _check_picture(file: str | None) -> None:
    """Raises UserError if the picture cannot be written, before minutes of compiling."""
    if file is None:
        return
    path = storage_path(file, "--picture")
    if path.suffix not in (".png", ".svg"):
        raise UserError(f"--picture={file}: give a file that ends in .png or .svg")
    check_writable(path.parent, f"--picture={file}")


def _mesh(text: str | None) -> dict[str, int]:
    if text is None:
        return {}
    try:
        data, expert, model = (int(n) for n in text.split(","))
    except ValueError:
        raise UserError(
            f"--mesh={text}: write three numbers, the sizes of the data, expert and model axes, as "
            "in --mesh=1,128,1"
        ) from None
    return {"data": data, "expert": expert, "model": model}


def _nearest_change(
    config: Config, hardware: Hardware, failed: StepPlan, measured: Measured | None
) -> str | None:
    """Flags and memory of the first change with which the step fits; None if there is none."""
    from switch_jax.planning.search import changes

    needed, limit = failed.hbm_bytes / 2**30, failed.hbm_limit_bytes / 2**30
    data, expert, model = failed.mesh
    config = config.replace("mesh", data=data, expert=expert, model=model)
    # At most what a device has of weights, gradients (twice where microbatches add them up), and
    # the optimiser's state.
    arrays = 2 if config.run.num_microbatches == 1 else 3
    most_saved = arrays * failed.parameter_bytes + failed.optimizer_bytes
    if isinstance(hardware, Slice):
        most_saved *= hardware.generation.devices_per_chip
    tried = list(
        changes(
            config,
            data * expert,
            on_gpus=isinstance(hardware, GpuCluster),
            sharding_may_suffice=most_saved > failed.hbm_bytes - failed.hbm_limit_bytes,
        )
    )
    print(
        f"the step does not fit: {needed:.1f} of {limit:.1f} GiB a chip; trying {len(tried)} "
        "changes that save memory, until one fits (a smaller BATCH_SIZE is not among them)",
        file=sys.stderr,
    )
    before = config, failed
    for i, (flags, changed) in enumerate(tried, start=1):
        least = _least_bytes(changed, *before)
        if least > failed.hbm_limit_bytes:
            size = f"{least / 2**30:.1f} GiB a chip"
            print(f"left out, since it needs at least {size}: {flags}", file=sys.stderr)
            continue
        try:
            what = f"the step with change {i} of {len(tried)}, {flags}"
            plan = _planned(changed, hardware, what, measured)
        except UserError as error:  # the batch does not divide over the microbatches
            print(f"cannot use {flags}: {error}", file=sys.stderr)
            continue
        size = f"{plan.hbm_bytes / 2**30:.1f} GiB a chip"
        if plan.fits:
            return f"{flags} ({size})"
        print(f"does not fit with {flags}: {size}", file=sys.stderr)
        before = changed, plan
    return None


def _least_bytes(config: Config, compiled: Config, plan: StepPlan) -> float:
    """Bytes of a chip that a step needs at least, from one with fewer microbatches; else 0.

    A microbatch of half the rows needs at least half the memory.
    """
    more = config.run.num_microbatches / compiled.run.num_microbatches
    is_same = config.mesh == compiled.mesh
    is_same &= config.model.remat_policy == compiled.model.remat_policy
    return plan.hbm_bytes / more if is_same and more > 1 else 0.0


@contextlib.contextmanager
def _compiling(what: str) -> Iterator[None]:
    """Prints to standard error what is being compiled, and for how long; Ctrl-C ends it at once."""
    from switch_jax.interrupts import ended_at_once
    from switch_jax.planning.compiler import remove_schedules

    start = time.monotonic()
    with seconds_shown(f"compiling {what}", line_period=60.0), ended_at_once(remove_schedules):
        yield
    seconds = time.monotonic() - start
    print(f"compiled {what} in {seconds:.0f} s", file=sys.stderr, flush=True)
