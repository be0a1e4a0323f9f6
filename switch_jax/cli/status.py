"""Shows how runs are doing, from the files in their folders.

    switch_jax status runs/demo/switch
    switch_jax status runs/demo/*/ gs://bucket/runs/large     # a line for each
    switch_jax status --json gs://bucket/runs/large           # a JSON object a line, for programs

Exit codes: 0; 2: a folder is not that of a run; 4: a run is stalled or has failed, and does not go
on by itself. docs/monitoring.md says when a run counts as stalled.
"""

import argparse
import dataclasses
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from switch_jax.errors import UserError

if TYPE_CHECKING:
    from switch_jax.reports.run_status import Status

NEEDS_ATTENTION = 4
_AT_ONCE = 16  # folders that are read at the same time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folders and the form of the output."""
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
    """Prints the status of each run; folders that are not those of runs are named.

    Raises:
      UserError: no folder is that of a run.
    """
    from switch_jax.reports.status_text import page, table

    found: list[Status] = []
    errors: list[str] = []
    with ThreadPoolExecutor(_AT_ONCE) as threads:  # in a bucket each waits for answers
        for reading in [threads.submit(_read, folder) for folder in args.folders]:
            try:
                found.append(reading.result())
            except UserError as error:
                errors.append(str(error))
    if not found:
        raise UserError("; ".join(errors))
    for message in errors:
        print(f"switch_jax status: {message}", file=sys.stderr)
    if args.json:
        for status in found:
            fields = dataclasses.asdict(status)
            print(json.dumps({**fields, "needs_attention": status.needs_attention}))
    else:
        lines = page(found[0]) if len(args.folders) == 1 else table(found)
        notes = [f"note: {line}" for status in found for line in status.left_out]
        print("\n".join([*lines, *notes]))
    if any(status.needs_attention for status in found):
        return NEEDS_ATTENTION
    return UserError.exit_code if errors else 0


def _read(folder: str) -> "Status":
    from switch_jax.reports.run_status import read_status

    try:
        return read_status(folder)
    except UserError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and "://" not in folder:
            raise
        reason = str(error).split("\n")[0]
        raise UserError(f"{folder} cannot be read: {reason}") from error
