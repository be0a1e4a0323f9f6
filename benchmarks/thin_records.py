"""Thins the records of runs to some 50 KB each, to be committed and reported again.

    python benchmarks/thin_records.py RUN... OUTPUT
    switch_jax report OUTPUT/*

Writes OUTPUT/NAME for each run folder, with what the report reads: `run.json` and `config.gin`
without absolute paths, and a `metrics.jsonl` with all evaluations and bad steps, every Nth training
record without norms, times and memory, and the routing of every few of those. Numbers have six
digits. `eval/metrics.jsonl` has the scores of generated text that `switch_jax eval` found.

Runs that shared their machine with other work were slowed by it, each in another way. `--step_ms`
counts their time anew, as steps times the milliseconds that benchmarks/step_ratio.py measures. Then
`run.json` has these, which the report notes, and the records have no tokens per second nor goodput.
"""

import argparse
import json
import math
import re
from pathlib import Path
from typing import Any

from switch_jax.errors import UserError
from switch_jax.reports.records import that_count
from switch_jax.run_folder import (
    Record,
    RecordKind,
    RunFolder,
    read_config,
    read_eval_metrics,
    read_metrics,
    read_run_json,
)

TRAIN_RECORDS = 60  # at most
ROUTER_RECORDS = 10  # at most
# Of records whose time is counted anew: what the other work slowed, too.
_SLOWED = ("tokens_per_second", "tokens_per_second_per_chip", "goodput")
# A quoted absolute path or URL; kept is its last name, and of a checkpoint RUN/checkpoints/STEP.
_ABSOLUTE = re.compile(
    r"""(['"])(?:[/~]|\w+://)(?:[^'"]*?/)??((?:[^'"/]+/checkpoints/)?[^'"/]+)/?\1"""
)


def main() -> None:
    """Thins the runs named in the command line, and prints the size of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="run folder")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="folder for the thinned runs")
    parser.add_argument("--step_ms", type=float, metavar="MS", help="time of a step of these runs")
    args = parser.parse_args()
    names = [run.resolve().name for run in args.runs]
    if len(set(names)) < len(names):
        parser.error(f"two runs have the same folder name ({', '.join(names)})")
    for run, name in zip(args.runs, names, strict=True):
        target = args.output / name
        if target.resolve() == run.resolve():
            parser.error(f"{run} would overwrite itself: name another OUTPUT than {args.output}")
        try:
            thin(run, target, args.step_ms)
        except UserError as error:
            parser.error(str(error))
        print(f"{target}: {sum(f.stat().st_size for f in target.rglob('*.*')) / 1000:.0f} KB")


def thin(run: Path, target: Path, step_ms: float | None = None) -> None:
    """Writes the thinned run folder.

    Args:
      run: the run's folder.
      target: the thinned one.
      step_ms: milliseconds of a step; None: the times of the records stay.

    Raises:
      UserError: there are no records in the run's folder.
    """
    source, output = RunFolder.at(run), RunFolder(target)
    written = read_metrics(source).value
    counted = that_count(written)
    train, evals = counted.train, counted.evals
    if not train and not evals:
        raise UserError(f"{source.metrics} holds no train or eval record")
    records = [*thinned(train), *(record for series in evals.values() for record in series)]
    records += [r for r in written if r["kind"] in (RecordKind.SKIPPED, RecordKind.ROLLBACK)]
    records.sort(key=lambda record: record["step"])
    facts = read_run_json(source).value
    if step_ms is not None:
        records = [counted_anew(record, step_ms) for record in records]
        facts["step_ms"] = step_ms
    target.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(rounded(record)) + "\n" for record in records]
    output.metrics.write_text("".join(lines))
    output.description.write_text(without_folders(json.dumps(facts, indent=2)) + "\n")
    output.config.write_text(without_folders(read_config(source).value))
    scores = [r for r in read_eval_metrics(source).value if r["kind"] == RecordKind.GENERATED]
    if scores:
        output.evaluation.metrics.parent.mkdir(exist_ok=True)
        lines = [json.dumps(rounded(score | {"settings": ""})) + "\n" for score in scores]
        output.evaluation.metrics.write_text("".join(lines))


def thinned(train: list[Record]) -> list[Record]:
    """The last of every N training records; its skipped steps are those of all N."""
    size = max(1, math.ceil(len(train) / TRAIN_RECORDS))
    groups = [train[max(0, end - size) : end] for end in range(len(train), 0, -size)]
    per_router = max(1, math.ceil(len(groups) / ROUTER_RECORDS))
    kept = []
    for i, group in enumerate(groups):
        record = {key: x for key, x in group[-1].items() if not isinstance(x, dict)}
        record["skipped_steps"] = sum(r.get("skipped_steps", 0) for r in group)
        if group[-1].get("router") and i % per_router == 0:
            record["router"] = group[-1]["router"]
        kept.append(record)
    return kept


def counted_anew(record: Record, step_ms: float) -> Record:
    """The record with the time of its steps at this many milliseconds each."""
    kept = {name: x for name, x in record.items() if name not in _SLOWED}
    return kept | {"seconds": record["step"] * step_ms / 1000}


def rounded(value: Any) -> Any:
    """The same with six digits for each number that is no integer, at any depth."""
    if isinstance(value, dict):
        return {key: rounded(x) for key, x in value.items()}
    if isinstance(value, list):
        return [rounded(x) for x in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def without_folders(text: str) -> str:
    """The text of a JSON or gin file with absolute paths cut to what names a run or file."""
    return _ABSOLUTE.sub(r"\1\2\1", text)


if __name__ == "__main__":
    main()
