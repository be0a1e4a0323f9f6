"""Plan the memory and time of a training step on a TPU slice, without a TPU.

    switch_jax plan --gin_file=models/switch_base.gin --gin_file=runs/pretrain.gin \\
        --topology=v5p-256 --mesh=1,128,1
    switch_jax plan --gin_file=models/switch_large.gin --gin_file=runs/pretrain.gin \\
        --topology=v5p-256 --search

The training step is compiled for the slice by the TPU's compiler on this machine, which takes some
minutes. Exit codes: 0 the step fits in memory; 3 it does not; 2 a mistake in the flags or the
config.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from switch_jax import exit_codes
from switch_jax.cli import gin_flags
from switch_jax.config import Config
from switch_jax.hardware.prices import check_price
from switch_jax.hardware.tpus import Slice, parse_slice
from switch_jax.storage import check_writable, storage_path
from switch_jax.utils.errors import UserError
from switch_jax.utils.terminal import seconds_shown

if TYPE_CHECKING:  # it loads JAX
    from switch_jax.planning.plan import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    gin_flags.add_gin_flags(parser)
    add(
        "--topology",
        required=True,
        metavar="SLICE",
        help="for example v3-32, v5e-256, v5p-256; several slices as 2xv5e-256",
    )
    meshes = parser.add_mutually_exclusive_group()
    meshes.add_argument(
        "--mesh",
        type=mesh_sizes,
        metavar="DATA,EXPERT,MODEL",
        help="sizes of the mesh axes, for example 1,128,1; default: those of the gin files",
    )
    meshes.add_argument(
        "--search",
        nargs="?",
        type=int,
        const=4,
        metavar="N",
        help="compile the N most promising meshes (default 4) and rank them",
    )
    add(
        "--price_per_chip_hour",
        type=float,
        metavar="USD",
        help="to know what an hour of all chips costs, and the run",
    )
    add("--json", action="store_true", help="print JSON")
    add("--picture", metavar="FILE", help="write a chart of memory and time, as PNG or SVG")


def main(args: argparse.Namespace) -> int:
    hardware = parse_slice(args.topology)
    if args.search is not None and args.search < 1:
        raise UserError(f"--search={args.search}: write a number of at least 1")
    check_price(args.price_per_chip_hour)
    if args.picture is not None:
        _check_picture(args.picture)
    config = _config(args, hardware)

    from switch_jax.planning import picture, plan_text

    searched = _searched(config, hardware, args.search) if args.search else []
    best = searched[0] if searched else _planned(config, hardware, f"the step for {hardware.name}")
    advice = None if best.fits else _nearest_change(config, hardware, best)
    if args.json:
        result = best.as_json() | ({} if best.fits else {"nearest_change": advice})
        if (price := args.price_per_chip_hour) is not None:
            result["cost_per_hour"] = price * hardware.chips
            result["cost"] = price * best.chip_hours if best.fits else None
        if searched:
            result["search"] = [plan.as_json() for plan in searched]
        print(json.dumps(result, indent=2))
    else:
        if searched:
            print(plan_text.ranking(searched))
        print(plan_text.table(best, args.price_per_chip_hour))
        if not best.fits:
            print(f"nearest change that fits: {advice or 'none of those tried'}")
    if args.picture:
        picture.draw(searched or [best], args.picture)
        print(f"picture: {args.picture}", file=sys.stderr)
    return exit_codes.DONE if best.fits else exit_codes.DOES_NOT_FIT


def _check_picture(file: str) -> None:
    """Raises UserError where minutes of compiling would be in vain."""
    path = storage_path(file, "--picture")
    if path.suffix not in (".png", ".svg"):
        raise UserError(f"--picture={file}: give a file that ends in .png or .svg")
    check_writable(path.parent, f"--picture={file}")


def _config(args: argparse.Namespace, hardware: Slice) -> Config:
    from switch_jax.gin_config.teacher import with_teacher

    unneeded = ("MODEL_DIR", "MIXTURE_OR_TASK_NAME", "INITIAL_CHECKPOINT_PATH")
    config = with_teacher(gin_flags.read(args, unneeded).config)
    config = config.replace("mesh", **(args.mesh or {}))

    from switch_jax.trainer.start.prepare import check_run  # loads JAX

    for warning in check_run(config, hardware.hosts):
        print(f"switch_jax plan: {warning}", file=sys.stderr)
    return config


def mesh_sizes(text: str) -> dict[str, int]:
    try:
        data, expert, model = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: write three numbers, as 1,128,1") from None
    return {"data": data, "expert": expert, "model": model}


def _planned(config: Config, hardware: Slice, what: str) -> Plan:
    """The plan for the config's mesh; `what` is compiled, in words."""
    from switch_jax.planning.plan import make_plan

    with _compiling(what):
        return make_plan(config, hardware)


def _searched(config: Config, hardware: Slice, number: int) -> list[Plan]:
    """The plans of the `number` most promising meshes, the fastest that fits first."""
    from switch_jax.planning import plan_text
    from switch_jax.planning.search import ranked, search

    plans = []
    for plan in search(config, hardware, number, _compiling):
        plans.append(plan)
        print(f"  {plan_text.in_short(plan)}", file=sys.stderr, flush=True)
    return ranked(plans)


def _nearest_change(config: Config, hardware: Slice, failed: Plan) -> str | None:
    """Flags and memory of the first change with which the step fits; None if there is none."""
    from switch_jax.planning.search import changes

    needed, limit = failed.hbm_bytes_per_chip / 2**30, failed.hbm_limit_bytes / 2**30
    data, expert, model = failed.mesh
    config = config.replace("mesh", data=data, expert=expert, model=model)
    # At most what a chip has of weights, gradients (twice where microbatches add them up), and
    # the optimiser's state.
    arrays = 2 if config.run.num_microbatches == 1 else 3
    most_saved = arrays * failed.parameter_bytes + failed.optimizer_bytes
    most_saved *= hardware.generation.devices_per_chip
    may_suffice = most_saved > failed.hbm_bytes_per_chip - failed.hbm_limit_bytes
    tried = list(changes(config, data * expert, sharding_may_suffice=may_suffice))
    print(
        f"the step does not fit: {needed:.1f} of {limit:.1f} GiB a chip; trying {len(tried)} "
        "changes that save memory, until one fits",
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
            plan = _planned(changed, hardware, what)
        except UserError as error:  # the batch does not divide over the microbatches
            print(f"cannot use {flags}: {error}", file=sys.stderr)
            continue
        size = f"{plan.hbm_bytes_per_chip / 2**30:.1f} GiB a chip"
        if plan.fits:
            return f"{flags} ({size})"
        print(f"does not fit with {flags}: {size}", file=sys.stderr)
        before = changed, plan
    return None


def _least_bytes(config: Config, compiled: Config, plan: Plan) -> float:
    """Bytes of a chip that a step needs at least, from one with fewer microbatches; else 0.

    A microbatch of half the rows needs at least half of them.
    """
    more = config.run.num_microbatches / compiled.run.num_microbatches
    is_same = config.mesh == compiled.mesh
    is_same &= config.model.remat_policy == compiled.model.remat_policy
    return plan.hbm_bytes_per_chip / more if is_same and more > 1 else 0.0


@contextlib.contextmanager
def _compiling(what: str) -> Iterator[None]:
    """Prints to standard error what is being compiled, and for how long."""
    start = time.monotonic()
    with seconds_shown(f"compiling {what}", line_period=60.0):
        yield
    seconds = time.monotonic() - start
    print(f"compiled {what} in {seconds:.0f} s", file=sys.stderr, flush=True)
