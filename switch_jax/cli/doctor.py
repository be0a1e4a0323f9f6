"""Check whether this machine computes the right thing, and how fast it is.

    switch_jax doctor                                  # all devices, some minutes
    switch_jax doctor --quick                          # about a minute
    switch_jax doctor --mesh=1,4,2 --folder=gs://my-bucket/runs --output=doctor.json

Each check is a line: its verdict, its numbers and, where it has failed, what to do. One that fails
does not stop the others. Exit codes: 0; 1: a check has failed; 2: a mistake in the flags.
"""

import argparse
import dataclasses
import json
from typing import Any

from switch_jax.cli import multihost
from switch_jax.errors import UserError
from switch_jax.storage import check_writable, storage_path

FAILED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The mesh, what is left out, and where results go."""
    parser.add_argument(
        "--mesh",
        metavar="DATA,EXPERT,MODEL",
        help="how the devices are arranged; default: all along the expert axis",
    )
    parser.add_argument("--quick", action="store_true", help="leave out what takes long")
    parser.add_argument(
        "--folder",
        default="runs",
        metavar="DIR",
        help="where runs are kept, of this machine or in a bucket: a checkpoint is written there, "
        "read and removed; default: %(default)s",
    )
    parser.add_argument("--output", metavar="FILE", help="also write what was found, as JSON")
    multihost.add_process_flags(parser)


def main(args: argparse.Namespace) -> int:
    """Runs the checks, and prints a line for each; returns 0 or FAILED."""
    if args.output:
        check_writable(storage_path(args.output, "--output").parent, f"--output={args.output}")
    folder = storage_path(args.folder, "--folder")
    config = _mesh(args.mesh)
    multihost.connect(args, config, "")

    import jax

    from switch_jax.doctor.all_checks import all_checks
    from switch_jax.doctor.checks import Verdict, run_checks
    from switch_jax.partitioning.mesh import make_mesh
    from switch_jax.runtime.processes import is_first

    mesh = make_mesh(config)
    found = []
    with jax.set_mesh(mesh):
        for finding in run_checks(all_checks(mesh, folder), quick=args.quick):
            found.append(finding)
            if is_first():
                print(finding, flush=True)
    failed = [finding for finding in found if finding.verdict == Verdict.FAILED]
    if is_first():
        if args.output:
            storage_path(args.output, "--output").write_text(_as_json(found))
        print(f"{len(failed)} of {len(found)} checks failed" if failed else "all checks passed")
    return FAILED if failed else 0


def _mesh(text: str | None) -> Any:
    from switch_jax.config import MeshConfig

    if text is None:
        return MeshConfig(data=1, expert=None, model=1)
    try:
        data, expert, model = (int(n) for n in text.split(","))
    except ValueError:
        raise UserError(f"--mesh={text}: write three numbers, as in --mesh=1,4,2") from None
    return MeshConfig(data, expert, model)


def _as_json(found: list[Any]) -> str:
    return json.dumps([dataclasses.asdict(finding) for finding in found], indent=2) + "\n"
