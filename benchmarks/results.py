"""The records of finished runs as one table, which the scripts beside this one print and draw from.

    python benchmarks/results.py runs/study benchmarks/results/study.parquet

Of each run folder in runs/study the table has a row for each evaluation ("eval"), for each record
of training ("train"), and for each score of generated text that `switch_jax eval` found
("generated"), with the columns of COLUMNS.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from switch_jax.reports.records import kept_records
from switch_jax.run_folder import RunFolder, read_object, read_records

RESULTS = Path(__file__).resolve().parent / "results"
COLUMNS = [
    "run",  # name of its folder
    *("seed", "num_experts", "parameters", "flops"),  # of the run; FLOPs of a token
    *("kind", "step", "seconds"),  # seconds since the first step
    "task",  # that was evaluated; "all": the mean over all, and the only one of a run
    *("quality", "content"),  # negative log perplexity, nats; of all targets, and of those of text
    *("dropped", "entropy"),  # of the routers, mean of the layers
    "load",  # [experts], of the first router
    "em",  # exact match, per cent
]


def rows_of(run: Path) -> Iterator[dict[str, Any]]:
    folder = RunFolder.at(run)
    facts = read_object(folder.description).value
    of_run = {"run": run.name, "flops": facts["flops_per_token"]}
    of_run |= {name: facts[name] for name in ("seed", "num_experts", "parameters")}
    counted = kept_records(read_records(folder.metrics).value)
    evals = [record for of_task in counted.evals.values() for record in of_task]
    for record in [*counted.train, *evals]:
        row = of_run | {name: record[name] for name in ("kind", "step", "seconds")}
        row["quality"] = record["neg_log_perplexity"]
        row["content"] = record.get("content_neg_log_perplexity")
        if record["kind"] == "eval":
            row["task"] = record["task"] if len(counted.evals) > 1 else "all"
        if router := record.get("router"):
            for name in ("dropped", "entropy"):
                row[name] = np.mean([x for stack in router.values() for x in stack[name]])
            row["load"] = np.float32(next(iter(router.values()))["load"][0])
        yield row
    for score in read_records(folder.evaluation.metrics).value:
        if score["kind"] == "generated":
            row = of_run | {name: score[name] for name in ("kind", "step", "task")}
            yield row | {"em": score["metrics"].get("em")}


def read(source: str | Path) -> pd.DataFrame:
    """The table of a file, or of the folder of some runs, those that have a record yet."""
    if Path(source).is_file():
        return pd.read_parquet(source)
    runs = sorted(file.parent for file in Path(source).glob("*/metrics.jsonl"))
    if not runs:
        raise SystemExit(f"{source} is no file of results, and no folder of runs")
    return pd.DataFrame([row for run in runs for row in rows_of(run)], columns=COLUMNS)


def arguments(doc: str, *studies: str) -> tuple[argparse.Namespace, pd.DataFrame]:
    """The flags of a script, by its docstring, and the table of the study that it prints."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    if len(studies) > 1:
        parser.add_argument("study", choices=studies)
        parser.add_argument("--headline", help="file to draw two of the picture's charts to")
    parser.add_argument("--runs", help="folder of runs, in place of benchmarks/results")
    parser.add_argument("--picture", help="file to draw")
    args = parser.parse_args()
    study = args.study if len(studies) > 1 else studies[0]
    return args, read(args.runs or RESULTS / f"{study}.parquet")


def curve(table: pd.DataFrame, run: str, task: str = "all") -> pd.DataFrame:
    """The evaluations of a run on a task, in the order of their steps."""
    found = table[(table.run == run) & (table.kind == "eval") & (table.task == task)]
    return found.sort_values("step")


def reached(curve: pd.DataFrame, quality: float) -> tuple[float, float]:
    """Step and seconds at which a curve first has a quality; NaN where it never does.

    Between two evaluations a curve is taken as straight.
    """
    values = curve.quality.to_numpy()
    later = np.flatnonzero(values[1:] >= quality)
    if not len(later):
        return np.nan, np.nan
    before, after = later[0], later[0] + 1
    part = (quality - values[before]) / (values[after] - values[before])
    steps, seconds = curve.step.to_numpy(), curve.seconds.to_numpy()
    return tuple(x[before] + part * (x[after] - x[before]) for x in (steps, seconds))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of finished runs")
    parser.add_argument("file", type=Path, help="to write")
    args = parser.parse_args()
    read(args.folder).to_parquet(args.file, index=False, compression="zstd")
    print(f"{args.file}: {args.file.stat().st_size:,} bytes")
