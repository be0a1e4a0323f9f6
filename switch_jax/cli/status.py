"""Shows how runs are doing, from the files in their folders.

    switch_jax status runs/demo/switch
    switch_jax status runs/demo/*/ gs://bucket/runs/large     # a line for each
    switch_jax status --json gs://bucket/runs/large           # a JSON object a line, for programs

Exit codes: 0; 1: a folder cannot be read now, which may pass; 2: a folder is not that of a run;
4: a run is stalled or has failed, and does not go on by itself. docs/monitoring.md says when a run
counts as stalled.
"""

import argparse
import dataclasses
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from switch_jax import exit_codes
from switch_jax.utils.errors import UserError, storage_error

if TYPE_CHECKING:
    from switch_jax.reports.run_status import Status

_AT_ONCE = 16  # folders that are read at the same time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="MODEL_DIR",
        help="folder of a run, of this machine or in a bucket",
    )
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object for each run, one a line"
    )


def main(args: argparse.Namespace) -> int:
    from switch_jax.reports.run_status import page, table

    with ThreadPoolExecutor(_AT_ONCE) as threads:  # in a bucket each waits for answers
        read = list(threads.map(_read, args.folders))
    found = [status for status in read if not isinstance(status, UserError)]
    errors = [error for error in read if isinstance(error, UserError)]
    for error in errors:
        print(f"switch_jax status: {error}", file=sys.stderr)
    if args.json:
        for status in found:
            fields = dataclasses.asdict(status)
            print(json.dumps({**fields, "needs_attention": status.needs_attention}))
    elif found:
        lines = page(found[0]) if len(args.folders) == 1 else table(found)
        notes = [f"note: {line}" for status in found for line in status.left_out]
        print("\n".join([*lines, *notes]))
    if any(status.needs_attention for status in found):
        return exit_codes.NEEDS_ATTENTION
    return max((error.exit_code for error in errors), default=exit_codes.DONE)


def _read(folder: str) -> "Status | UserError":
    """Reads the status of a run; returns the error where its folder cannot be read."""
    from switch_jax.reports.run_status import page, read_status

    try:
        status = read_status(folder)
        page(status)  # of a damaged value no text can be made
        return status
    except UserError as error:
        return error
    except Exception as error:  # a damaged file, or an answer of a bucket
        reason = str(error).split("\n")[0]
        return storage_error(f"{folder} cannot be read: {reason}", error)
