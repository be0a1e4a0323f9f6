"""`switch_jax report`: the curves, numbers and text of one or more runs on one HTML page.

The exit code is 2 where one of the folders is not there, and 1 where one cannot be read now, which
may pass; the page shows the others.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from switch_jax import exit_codes
from switch_jax.cli import data_flags, gin_flags, inference_flags, processes
from switch_jax.storage import in_bucket, storage_path, write_file
from switch_jax.utils.errors import TransientError, UserError
from switch_jax.utils.fields import Range

if TYPE_CHECKING:  # they load matplotlib, JAX and TensorFlow
    from switch_jax.inference.continuations import HeldOutText
    from switch_jax.reports.findings import Findings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="run folder (a training's MODEL_DIR), finished or still going; a dense and a sparse "
        "one together also give the speed-up; runs that differ in RANDOM_SEED alone are averaged",
    )
    parser.add_argument(
        "--output",
        default="report.html",
        metavar="FILE",
        help="the page to write (default: %(default)s)",
    )
    parser.add_argument(
        "--examples",
        type=int,
        default=0,
        metavar="N",
        help="also show N held-out texts as each run goes on with them, and which experts the "
        "tokens of the first one go to; the runs are of one task (default: %(default)s)",
    )
    data_flags.add_data_flags(parser)


def main(args: argparse.Namespace) -> int:
    from switch_jax.reports import page  # matplotlib takes a second to import
    from switch_jax.reports.findings import read_findings
    from switch_jax.reports.runs import NoFolderError
    from switch_jax.reports.table import text_lines

    with inference_flags.fields_named_as_flags():
        Range(0, 1000).check("examples", args.examples)
    output = storage_path(args.output, "--output")
    if not in_bucket(output) and not output.parent.is_dir():
        raise UserError(f"--output={output}: there is no folder {output.parent}: make it first")
    findings = read_findings(args.runs)
    text = _continued(args, findings) if args.examples else None
    write_file(output, page.render(findings, text), f"--output {args.output}")
    print("\n".join([*text_lines(findings, text), "", f"page: {output}"]))
    for error in findings.left_out:
        print(f"switch_jax report: {error}", file=sys.stderr)
    errors = [e for e in findings.left_out if isinstance(e, NoFolderError | TransientError)]
    return max((error.exit_code for error in errors), default=exit_codes.DONE)


def _continued(args: argparse.Namespace, findings: Findings) -> HeldOutText:
    """Asks the runs for text; of several seeds the first."""
    gin_flags.announce_loading()
    data_flags.apply(args)
    processes.enable_compilation_cache()

    from switch_jax.inference.continuations import continue_held_out

    folders = {run.name: run.each_seed[0].folder for run in findings.runs}
    return continue_held_out(folders, args.examples)
