"""The demo's models under each optimiser, at equal steps (docs/training_small_models.md).

    python benchmarks/optimizers_in_small.py                  # trains what is missing, and prints
    python benchmarks/optimizers_in_small.py --runs docs/results/optimizers --print_only

Half as long as the demo, with its schedule: the rate of the table for 400 steps, and then falling
with the square root of the step. A run takes two or three minutes on a quiet core, all of them an
hour. A stopped call goes on where it was. The seed is one that the docs report nowhere else.
"""

import argparse
from pathlib import Path

from paper_in_small import QUALITY, train_demo

from switch_jax.errors import UserError
from switch_jax.reports.runs import read_run

SEED, STEPS, WARMUP = 10, 1250, 400
MODELS = {"dense": "t5_demo", "8 experts": "switch_demo"}
# By optimiser: the rates that are tried.
RATES = {
    "adafactor": (0.015, 0.03, 0.06),
    "adamw": (0.001, 0.003, 0.01),
    "adamw_rms": (0.01, 0.02, 0.04),
    "muon": (0.003, 0.01, 0.03),
}


def main() -> None:
    """Trains the runs that are missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--optimizers", nargs="+", choices=RATES, default=list(RATES))
    parser.add_argument("--runs", type=Path, default=Path("runs/optimizers"))
    parser.add_argument("--print_only", action="store_true", help="do not train")
    args = parser.parse_args()
    folders = {
        (optimizer, rate, model): args.runs / f"{model}_{optimizer}_{rate:g}"
        for optimizer in args.optimizers
        for rate in RATES[optimizer]
        for model in MODELS.values()
    }
    if not args.print_only:
        for (optimizer, rate, model), folder in folders.items():
            train_demo(folder, model, macros(optimizer, rate))
    quality = {key: read_run(folder).evals["all"].last(QUALITY) for key, folder in folders.items()}
    print("| optimiser | rate | " + " | ".join(MODELS) + " | ahead by |\n|---|---|---|---|---|")
    for optimizer in args.optimizers:
        by_rate = [
            [quality[optimizer, rate, model] for model in MODELS.values()]
            for rate in RATES[optimizer]
        ]
        for rate, row in zip(RATES[optimizer], by_rate, strict=True):
            print(line(optimizer, f"{rate:g}", *row))
        print(line(optimizer, "each its best", *map(max, zip(*by_rate, strict=True))))


def macros(optimizer: str, rate: float) -> list[str]:
    return [
        f"OPTIMIZER={optimizer}",
        f"LEARNING_RATE={rate * WARMUP**0.5:g}",  # as in the paper, over the root of the step
        f"WARMUP_STEPS={WARMUP}",
        f"TRAIN_STEPS={STEPS}",
        f"RANDOM_SEED={SEED}",
    ]


def line(optimizer: str, rate: str, dense: float, sparse: float) -> str:
    """A line of the table."""
    return f"| {optimizer} | {rate} | {dense:.3f} | {sparse:.3f} | {sparse - dense:+.3f} |"


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from error
