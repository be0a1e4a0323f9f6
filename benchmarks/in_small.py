"""What the scripts of small runs share: how their models are trained, and their tables."""

import argparse
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from results import curve, reached

DENSE, SWITCH = "models/t5_demo.gin", "benchmarks/gin/in_small_switch.gin"


def parser(doc: str, tables: Iterable[str]) -> argparse.ArgumentParser:
    """The flags of such a script, by its docstring and the names of its tables."""
    made = argparse.ArgumentParser(description=doc.splitlines()[0])
    made.add_argument("--tables", nargs="+", choices=list(tables), default=list(tables))
    made.add_argument("--runs", type=Path, help="folder of runs, in place of benchmarks/results")
    made.add_argument("--train", action="store_true", help="first train there what is missing")
    return made


def train(folder: Path, model: str, macros: Sequence[str], files: Sequence[str] = ()) -> None:
    """Trains DENSE or SWITCH to its end, on one device; a run that has ended only says so."""
    files = [model, "benchmarks/gin/in_small.gin", *files]
    macros = [f"MODEL_DIR={folder}", *macros]
    print(f"training {folder}", flush=True)
    command = [*(f"--gin_file={file}" for file in files), *(f"--gin.{macro}" for macro in macros)]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.parent.with_suffix(".log").open("a") as log:
        command = [sys.executable, "-m", "switch_jax", "train", *command]
        if code := subprocess.run(command, stdout=log, stderr=log).returncode:
            raise SystemExit(f"{folder} ended with exit code {code}: see {log.name}")


def curves(table: pd.DataFrame, run: str) -> list[pd.DataFrame]:
    """The evaluations of RUN_0, RUN_1 and RUN_2; a seed that was not run is left out."""
    found = [curve(table, f"{run}_{seed}") for seed in range(3)]
    return [one for one in found if len(one)]


def last(table: pd.DataFrame, run: str) -> np.ndarray:
    """Their quality after the last step, [seeds]."""
    return np.array([one.quality.iloc[-1] for one in curves(table, run)])


def mean_and_deviation(values: np.ndarray, sign: str = "") -> str:
    mean = f"{values.mean():{sign}.3f}"
    return f"{mean} ± {values.std(ddof=1):.3f}" if len(values) > 1 else mean


def print_table(table: pd.DataFrame, rows: Mapping[str, str]) -> None:
    """Prints the runs by label; "ahead" and "sooner" are against the first row, seed by seed.

    "Sooner" is how many times sooner, in steps, a row is where the first one ends: "no" where a
    seed does not get there. "Dropped" is of the last half of the training.
    """
    print("\n| | quality | ahead | sooner | dropped |\n|---|---|---|---|---|")
    first = last(table, next(iter(rows.values())))
    for i, (label, run) in enumerate(rows.items()):
        quality, ahead, sooner = last(table, run), "", ""
        if i:
            ahead = mean_and_deviation(quality - first, "+")
            at = [
                (c.step.iloc[-1], reached(c, x)[0])
                for c, x in zip(curves(table, run), first, strict=True)
            ]
            mean = np.mean([end / step for end, step in at])
            sooner = "no" if np.isnan(mean) else f"{mean:.2f}"
        routed = [table[table.run == f"{run}_{seed}"].dropped.dropna() for seed in range(3)]
        late = np.concatenate([values[len(values) // 2 :] for values in routed])
        dropped = f"{late.mean():.1%}" if len(late) else ""
        print(f"| {label} | {mean_and_deviation(quality)} | {ahead} | {sooner} | {dropped} |")
