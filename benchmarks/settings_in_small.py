"""Optimisers, learning rates and dropout with the demo's models (docs/training_small_models.md).

    python benchmarks/settings_in_small.py --tables adamw muon  # trains what is missing, and prints
    python benchmarks/settings_in_small.py --runs docs/results/settings --print_only

A table for each optimiser, by learning rate, after 1,250 steps with the demo's schedule. That of
Adafactor, the paper's optimiser, has more numbers of experts. `2500_steps` is as long as the demo.
The runs of `dropout` read one small corpus more than twelve times.

A run takes three to six minutes on a quiet core; all of them take two and a half hours. Two calls
with other tables go side by side, each under `taskset --cpu-list`. A stopped call goes on where it
was. The seed is one that the docs report nowhere else.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from paper_in_small import QUALITY, train_demo

from switch_jax.errors import UserError
from switch_jax.reports.runs import read_run

SEED, STEPS, WARMUP = 10, 1250, 400
# By name: the gin file, and what the model has beside it.
MODELS = {
    "dense": ("t5_demo", ()),
    "experts_2": ("switch_demo", ("NUM_EXPERTS=2",)),
    "experts_8": ("switch_demo", ()),
    "experts_32": ("switch_demo", ("NUM_EXPERTS=32",)),
}
# By optimiser: the rates that are tried.
RATES = {
    "adafactor": (0.015, 0.03, 0.06, 0.12),
    "adamw": (0.001, 0.003, 0.01, 0.03),
    "muon": (0.003, 0.01, 0.03),
}
BIBLE = ("MIXTURE_OR_TASK_NAME=bible_span_corruption",)
DROPOUT = {
    "bible": BIBLE,
    "bible_dropout_0.1": (*BIBLE, "DROPOUT_RATE=0.1"),
    "bible_expert_dropout_0.4": (*BIBLE, "EXPERT_DROPOUT_RATE=0.4"),
}


def of_optimizer(name: str) -> dict[str, tuple[str, ...]]:
    """The settings of an optimiser's table, by name: what each changes."""
    return {f"{name}_{rate:g}": of_rate(name, rate) for rate in RATES[name]}


def of_rate(optimizer: str, rate: float, steps: int = STEPS) -> tuple[str, ...]:
    return (
        f"OPTIMIZER={optimizer}",
        f"LEARNING_RATE={rate * WARMUP**0.5:g}",  # as in the paper, over the root of the step
        f"WARMUP_STEPS={WARMUP}",
        f"TRAIN_STEPS={steps}",
    )


# By table: its models and its settings.
TABLES = {name: (("dense", "experts_8"), of_optimizer(name)) for name in RATES}
TABLES["adafactor"] = (tuple(MODELS), of_optimizer("adafactor"))
OF_THE_DEMO = {
    f"2500_steps_adafactor_{rate:g}": of_rate("adafactor", rate, 2500) for rate in (0.03, 0.06)
}
TABLES["2500_steps"] = (("dense", "experts_8"), OF_THE_DEMO)
TABLES["dropout"] = (("dense", "experts_8"), DROPOUT)


def main() -> None:
    """Trains the runs that are missing, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--runs", type=Path, default=Path("runs/settings"))
    parser.add_argument("--print_only", action="store_true", help="do not train")
    args = parser.parse_args()
    for table in args.tables:
        for folder, gin_model, macros in () if args.print_only else runs(table):
            train_demo(args.runs / folder, gin_model, macros)
        print("\n".join(lines(table, args.runs)), flush=True)


def runs(table: str) -> Iterator[tuple[str, str, list[str]]]:
    """Folder, gin file of the model and macros of each run of a table."""
    models, settings = TABLES[table]
    for model in models:
        gin_model, of_model = MODELS[model]
        for setting, changed in settings.items():
            # A dense model has no experts whose dropout could be changed.
            if model == "dense" and "expert" in setting:
                continue
            yield f"{model}_{setting}", gin_model, [*of_model, *changed, f"RANDOM_SEED={SEED}"]


def lines(table: str, folder: Path) -> Iterator[str]:
    """The table in Markdown: held-out negative log perplexities after the last step."""
    models, settings = TABLES[table]
    trained = {name for name, _, _ in runs(table)}
    yield f"\n| {table} | " + " | ".join(models).replace("_", " ") + " |"
    yield "|---" * (1 + len(models)) + "|"
    best = dict.fromkeys(models, float("-inf"))
    for setting in settings:
        cells = []
        for model in models:
            if (name := f"{model}_{setting}") not in trained:
                cells.append("")
                continue
            run = read_run(folder / name)
            quality = run.evals[run.own_task].last(QUALITY)
            best[model] = max(best[model], quality)
            cells.append(f"{quality:.3f}")
        yield f"| {setting.replace('_', ' ')} | " + " | ".join(cells) + " |"
    yield "| the best | " + " | ".join(f"{value:.3f}" for value in best.values()) + " |"


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from error
