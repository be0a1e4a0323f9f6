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
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from switch_jax.cli import gin_flags
from switch_jax.cli.teacher import with_teacher
from switch_jax.config import Config
from switch_jax.errors import FieldError, UserError
from switch_jax.hardware import Slice

if TYPE_CHECKING:  # it loads JAX
    from switch_jax.planning.plan import Plan

DOES_NOT_FIT = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The slice, the mesh, and the form of the output."""
    gin_flags.add_gin_flags(parser)
    parser.add_argument(
        "--topology",
        required=True,
        metavar="SLICE",
        help="for example v3-32, v5e-256, v5p-256; several slices as 2xv5e-256",
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
    from switch_jax.hardware import parse_slice

    hardware = parse_slice(args.topology)
    mesh = _mesh(args.mesh)
    if args.search is not None and (mesh or args.search < 1):
        raise UserError("--search takes a number of at least 1, and excludes --mesh")
    _check_picture(args.picture)
    unneeded = ("MODEL_DIR", "MIXTURE_OR_TASK_NAME", "INITIAL_CHECKPOINT_PATH")
    config = gin_flags.build(args, unneeded=unneeded)
    config = with_teacher(config, gin_flags.search_paths(args))
    try:
        config = config.replace("mesh", **mesh)
    except FieldError as error:
        raise UserError(f"--mesh={args.mesh}: {error}") from error

    from switch_jax.planning import picture, plan_text
    from switch_jax.planning.plan import make_plan
    from switch_jax.planning.search import ranked, search

    if args.search:
        plans = []
        for plan in search(config, hardware, args.search, _compiling):
            plans.append(plan)
            print(f"  {plan_text.in_short(plan)}", file=sys.stderr, flush=True)
        plans = ranked(plans)
    else:
        with _compiling(f"the step for {hardware.name}"):
            plans = [make_plan(config, hardware)]
    best = plans[0]
    advice = None if best.fits else _nearest_change(config, hardware, best)
    if args.json:
        result = best.as_json() | ({} if best.fits else {"nearest_change": advice})
        if args.search:
            result["search"] = [plan.as_json() for plan in plans]
        print(json.dumps(result, indent=2))
    else:
        if args.search:
            print(plan_text.ranking(plans))
        print(plan_text.table(best))
        if not best.fits:
            print(f"nearest change that fits: {advice or 'none of those tried'}")
    if args.picture:
        picture.draw(plans, args.picture)
        print(f"picture: {args.picture}", file=sys.stderr)
    return 0 if best.fits else DOES_NOT_FIT


def _check_picture(file: str | None) -> None:
    """Raises UserError if the picture cannot be written, before minutes of compiling."""
    if file is None:
        return
    path = Path(file)
    if path.suffix not in (".png", ".svg"):
        raise UserError(f"--picture={file}: give a file that ends in .png or .svg")
    if not path.parent.is_dir():
        raise UserError(f"--picture={file}: there is no folder {path.parent}")


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


def _nearest_change(config: Config, hardware: Slice, failed: Plan) -> str | None:
    """Flags and memory of the first change with which the step fits; None if there is none."""
    from switch_jax.planning.plan import make_plan
    from switch_jax.planning.search import changes

    needed, limit = failed.hbm_bytes / 2**30, failed.hbm_limit_bytes / 2**30
    data, expert, model = failed.mesh
    config = config.replace("mesh", data=data, expert=expert, model=model)
    tried = list(changes(config, data * expert))
    print(
        f"the step does not fit: {needed:.1f} of {limit:.1f} GiB a chip; trying {len(tried)} "
        "changes that save memory, until one fits (a smaller BATCH_SIZE is not among them)",
        file=sys.stderr,
    )
    for i, (flags, changed) in enumerate(tried, start=1):
        try:
            with _compiling(f"the step with change {i} of {len(tried)}, {flags}"):
                plan = make_plan(changed, hardware)
        except UserError as error:  # the batch does not divide over the microbatches
            print(f"cannot use {flags}: {error}", file=sys.stderr)
            continue
        size = f"{plan.hbm_bytes / 2**30:.1f} GiB a chip"
        if plan.fits:
            return f"{flags} ({size})"
        print(f"does not fit with {flags}: {size}", file=sys.stderr)
    return None


@contextlib.contextmanager
def _compiling(what: str) -> Iterator[None]:
    """Prints to standard error what is being compiled, and for how long; Ctrl-C ends it at once."""
    from switch_jax.interrupts import ended_at_once
    from switch_jax.planning.compiler import remove_schedules

    start, done = time.monotonic(), threading.Event()
    on_terminal = sys.stderr.isatty()

    def report() -> None:
        period, start_of_line, end = (1.0, "\r", "") if on_terminal else (60.0, "", "\n")
        while not done.wait(period):
            seconds = time.monotonic() - start
            text = f"{start_of_line}compiling {what}: {seconds:.0f} s"
            print(text, end=end, file=sys.stderr, flush=True)

    if not on_terminal:
        print(f"compiling {what}", file=sys.stderr, flush=True)
    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    compiled = False
    try:
        with ended_at_once(remove_schedules):
            yield
        compiled = True
    finally:
        done.set()
        thread.join()
        seconds = time.monotonic() - start
        start_of_line = "\r" if on_terminal else ""
        if compiled:
            print(f"{start_of_line}compiled {what} in {seconds:.0f} s", file=sys.stderr, flush=True)
        elif on_terminal and seconds > 1:
            print(file=sys.stderr, flush=True)  # ends the line
