"""`switch_jax report`: the curves and numbers of one or more runs on one HTML page.

The exit code is 2 where one of the folders is not there, and 1 where one cannot be read now, which
may pass; the page shows the others.
"""

import argparse
import sys

from switch_jax import exit_codes
from switch_jax.storage import in_bucket, storage_path, write_file
from switch_jax.utils.errors import TransientError, UserError


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


def main(args: argparse.Namespace) -> int:
    from switch_jax.reports import page  # matplotlib takes a second to import
    from switch_jax.reports.findings import read_findings
    from switch_jax.reports.runs import NoFolderError
    from switch_jax.reports.table import text_lines

    output = storage_path(args.output, "--output")
    if not in_bucket(output) and not output.parent.is_dir():
        raise UserError(f"--output={output}: there is no folder {output.parent}: make it first")
    findings = read_findings(args.runs)
    write_file(output, page.render(findings), f"--output {args.output}")
    print("\n".join([*text_lines(findings), "", f"page: {output}"]))
    for error in findings.left_out:
        print(f"switch_jax report: {error}", file=sys.stderr)
    errors = [e for e in findings.left_out if isinstance(e, NoFolderError | TransientError)]
    return max((error.exit_code for error in errors), default=exit_codes.DONE)
