"""The paper's comparisons with the models of the demo, three seeds each (docs/experiments.md).

    python benchmarks/paper_in_small.py --tables 11 figure_12 # trains what is missing, and prints
    python benchmarks/paper_in_small.py --runs docs/results/in_small --print_only

A run takes five minutes on a quiet core; all of them take some five hours. A stopped call goes on
where it was. Two calls with other tables go side by side, each under `taskset --cpu-list`. The
tables have held-out negative log perplexities after the last step, as mean and standard deviation
over the seeds; "ahead" is the mean over the seeds of the difference to the first row.
"""

import argparse
import dataclasses
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from switch_jax.errors import UserError
from switch_jax.reports.comparison import first_reached
from switch_jax.reports.runs import Run, read_run
from switch_jax.reports.series import Series

QUALITY = "neg_log_perplexity"
TOP_2 = ("NUM_SELECTED_EXPERTS=2", "SECOND_EXPERT_POLICY=random")
# By name: what a run has beside the demo. Those of DISTILLED learn from `switch` of their seed.
SPARSE = {
    "switch": (),
    "top1_1.0": ("TRAIN_EXPERT_CAPACITY_FACTOR=1.0",),
    "top1_2.0": ("TRAIN_EXPERT_CAPACITY_FACTOR=2.0",),
    "top2_1.0": (*TOP_2, "TRAIN_EXPERT_CAPACITY_FACTOR=1.0"),
    "top2_1.25": (*TOP_2, "TRAIN_EXPERT_CAPACITY_FACTOR=1.25"),
    "top2_2.0": (*TOP_2, "TRAIN_EXPERT_CAPACITY_FACTOR=2.0"),
    "selective": ("ACTIVATION_DTYPE=bfloat16",),
    "bfloat16": ("ACTIVATION_DTYPE=bfloat16", "ROUTER_DTYPE=bfloat16"),
    "scale_0.1": ("SCALE=0.1",),
    "argmax": ("JITTER_NOISE=0.0",),
    "sample": ("JITTER_NOISE=0.0", "ROUTER_POLICY=sample"),
    "input_dropout": ("JITTER_NOISE=0.0", "ROUTER_POLICY=input_dropout"),
    "four_rounds": ("NTLB_ROUNDS=4",),
    "experts_2": ("NUM_EXPERTS=2",),
    "experts_4": ("NUM_EXPERTS=4",),
    "attention": ("EXPERT_SUBLAYERS=attention",),
    "both": ("EXPERT_SUBLAYERS=both",),
}
DISTILLED = {
    "distilled": ("DISTILLATION_FRACTION_SOFT=1.0", "INITIALIZE_FROM_TEACHER=False"),
    "initialized": ("DISTILLATION_FRACTION_SOFT=1.0",),
    "mixed": (),
    "control": ("DISTILLATION_FRACTION_SOFT=0.0",),
}
# By name of the table: the runs of its rows, by label.
TABLES = {
    "1": {
        "T5": "dense",
        "MoE, factor 2.0": "top2_2.0",
        "Switch, 2.0": "top1_2.0",
        "MoE, 1.25": "top2_1.25",
        "Switch, 1.25": "switch",
        "MoE, 1.0": "top2_1.0",
        "Switch, 1.0": "top1_1.0",
    },
    "2": {"float32": "switch", "selective": "selective", "bfloat16": "bfloat16"},
    "3": {"scale 1.0": "switch", "scale 0.1": "scale_0.1"},
    "6": {
        "T5": "dense",
        "teacher": "switch",
        "distillation": "distilled",
        "+ the teacher's weights": "initialized",
        "+ 0.75 hard loss": "mixed",
        "these weights alone": "control",
    },
    "10": {
        "experts in feed-forward layers": "switch",
        "in attention": "attention",
        "in both": "both",
    },
    "11": {
        "argmax": "argmax",
        "sample softmax": "sample",
        "input dropout": "input_dropout",
        "input jitter": "switch",
    },
    "figure_11": {"top-1": "switch", "No-Token-Left-Behind": "four_rounds"},
    "figure_12": {"T5": "dense", "2 experts": "experts_2", "4": "experts_4", "8": "switch"},
}

TITLES = {
    "1": "Table 1: Switch, MoE and T5",
    "2": "Table 2: precision",
    "3": "Table 3: initial scale",
    "6": "Table 6: distillation",
    "10": "Table 10: experts in attention",
    "11": "Table 11: router policies",
    "figure_11": "Figure 11: No-Token-Left-Behind",
    "figure_12": "Figure 12: few experts",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table: its runs, one for each seed."""

    label: str
    runs: Sequence[Run]

    @property
    def curves(self) -> list[Series]:
        return [run.evals["all"] for run in self.runs]

    @property
    def last(self) -> np.ndarray:
        """[seeds], at the last step."""
        return np.array([curve.last(QUALITY) for curve in self.curves])


def main() -> None:
    """Trains the runs that are missing, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/in_small"))
    parser.add_argument("--print_only", action="store_true", help="do not train")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw the tables")
    args = parser.parse_args()
    drawn = {}
    for table in args.tables:
        for name in () if args.print_only else needed_runs(TABLES[table].values()):
            for seed in args.seeds:
                train(name, seed, args.runs)
        rows = [
            Row(label, [read_run(args.runs / f"{name}_{seed}") for seed in args.seeds])
            for label, name in TABLES[table].items()
        ]
        print(f"\n{table.replace('_', ' ')}\n\n" + "\n".join(lines(rows)), flush=True)
        drawn[table] = rows
    if args.picture is not None:
        draw(drawn).savefig(args.picture, dpi=150)


def needed_runs(names: Iterable[str]) -> list[str]:
    """The runs of a table, teachers first."""
    return sorted(names, key=lambda name: name != "switch")


def train(name: str, seed: int, runs: Path) -> None:
    """Trains one run to its end; a run that has ended only says so."""
    model = "switch_demo" if name in SPARSE else "t5_demo"
    files, macros = [], [f"RANDOM_SEED={seed}", *(SPARSE | DISTILLED | {"dense": ()})[name]]
    if name in DISTILLED:
        files.append("runs/distill.gin")
        macros.append(f"TEACHER_DIR={runs / f'switch_{seed}'}")
    train_demo(runs / f"{name}_{seed}", model, macros, files)


def train_demo(folder: Path, model: str, macros: Sequence[str], files: Sequence[str] = ()) -> None:
    """Trains a model of the demo, on one device, with other macros and more gin files."""
    files = [f"models/{model}.gin", "runs/demo.gin", *files]
    macros = [f"MODEL_DIR={folder}", "MESH_EXPERT=1", *macros]
    print(f"training {folder}", flush=True)
    command = [*(f"--gin_file={file}" for file in files), *(f"--gin.{macro}" for macro in macros)]
    runs = folder.parent
    runs.mkdir(parents=True, exist_ok=True)
    with (runs.parent / f"{runs.name}.log").open("a") as log:
        done = subprocess.run(
            [sys.executable, "-m", "switch_jax", "train", *command],
            stdout=log,
            stderr=log,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"{folder} ended with exit code {done.returncode}: see {log.name}")


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """The table in Markdown.

    "Sooner" is how many times sooner, in steps, a row is where the first one ends. "Dropped" is of
    the last half of the training.
    """
    first = rows[0]
    yield "| | quality | ahead | sooner | dropped |"
    yield "|---|---|---|---|---|"
    for row in rows:
        cells = [row.label, mean_and_deviation(row.last)]
        cells.append("" if row is first else mean_and_deviation(row.last - first.last, "+"))
        cells += ["" if row is first else sooner(row, first), dropped(row)]
        yield f"| {' | '.join(cells)} |"


def mean_and_deviation(values: np.ndarray, sign: str = "") -> str:
    """[seeds] -> their mean, and their standard deviation where there are several."""
    mean = f"{values.mean():{sign}.3f}"
    return f"{mean} ± {values.std(ddof=1):.3f}" if len(values) > 1 else mean


def draw(tables: Mapping[str, Sequence[Row]]) -> Figure:
    """A panel for each table: its rows' quality, mean and standard deviation over the seeds."""
    sizes = [len(rows) for rows in tables.values()]
    height = 0.27 * sum(sizes) + 0.42 * len(sizes) + 0.5  # inches
    figure = Figure((8.0, height), layout="constrained")
    panels = figure.subplots(len(sizes), squeeze=False, sharex=True, height_ratios=sizes)[:, 0]
    for ax, (table, rows) in zip(panels, tables.items(), strict=True):
        for y, row in enumerate(rows):
            is_first = row is rows[0]
            spread = row.last.std(ddof=1) if len(row.last) > 1 else 0.0
            colour = "#D55E00" if is_first else "#0072B2"
            ax.errorbar(row.last.mean(), y, xerr=spread, fmt="o", color=colour, capsize=3)
        ax.axvline(rows[0].last.mean(), color="#D55E00", linewidth=1, linestyle=":")
        ax.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=9)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_title(TITLES[table], loc="left", fontsize=10, fontweight="bold")
        ax.grid(axis="x", alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("held-out negative log perplexity [nats], higher is better")
    return figure


def sooner(row: Row, first: Row) -> str:
    """The mean over the seeds, or "no" where a seed does not reach the first row's last value."""
    pairs = zip(row.curves, first.last, strict=True)
    mean = np.mean([curve.step[-1] / first_reached(curve, last).step for curve, last in pairs])
    return "no" if np.isnan(mean) else f"{mean:.2f}"


def dropped(row: Row) -> str:
    """The share of the tokens, over the layers and seeds."""
    of_layers = [layer.statistics.get("dropped") for run in row.runs for layer in run.layers]
    shares = [values[len(values) // 2 :] for values in of_layers]
    return f"{np.mean(np.concatenate(shares)):.1%}" if shares else ""


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from error
