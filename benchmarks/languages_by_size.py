"""How far mSwitch is ahead of mT5 in languages with much and with little text.

    python benchmarks/languages_by_size.py docs/results/languages/mt5 docs/results/languages/mswitch

Counts the characters of each language's training text, which `make languages` builds in
runs/large_multilingual, and prints a row for the languages on each side of 100,000. Values are
held-out negative log perplexities after the last step, a language by itself; speed-ups are the
report's.
"""

import argparse
import gzip
import statistics
from collections.abc import Sequence
from pathlib import Path

from switch_jax.errors import UserError
from switch_jax.reports.comparison import compare
from switch_jax.reports.runs import Run, read_run

MUCH = 100_000  # characters


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dense", type=Path)
    parser.add_argument("sparse", type=Path)
    parser.add_argument("--text", type=Path, default=Path("runs/large_multilingual"))
    args = parser.parse_args()
    dense, sparse = read_run(args.dense), read_run(args.sparse)
    tasks = sorted(dense.evals.keys() & sparse.evals.keys() - {"all"})
    size = {task: characters(args.text / f"{task.split('.')[-1]}.train.txt.gz") for task in tasks}
    print(f"{len(tasks)} languages, {sum(size.values()):,} characters")
    print("| training text | languages | ahead in | ahead by, mean | content, mean | speed-up |")
    print("|---|---|---|---|---|---|")
    much = [task for task in tasks if size[task] > MUCH]
    print(line(f"more than {MUCH:,} characters", dense, sparse, much))
    print(line("less", dense, sparse, [task for task in tasks if size[task] <= MUCH]))


def characters(file: Path) -> int:
    try:
        with gzip.open(file, "rt", encoding="utf-8") as text:
            return len(text.read())
    except FileNotFoundError as error:
        raise UserError(f"there is no {file}: make languages builds it") from error


def line(name: str, dense: Run, sparse: Run, tasks: Sequence[str]) -> str:
    """A row: the speed-up in steps is the median, over the languages where there is one."""
    ahead = {
        metric: [sparse.evals[task].last(metric) - dense.evals[task].last(metric) for task in tasks]
        for metric in ("neg_log_perplexity", "content_neg_log_perplexity")
    }
    plain, content = ahead.values()
    pairs = [compare(dense, sparse, task) for task in tasks]
    speedups = [pair.step_speedup for pair in pairs if pair is not None and pair.has_reached]
    return (
        f"| {name} | {len(tasks)} | {sum(x > 0 for x in plain)} | {statistics.mean(plain):+.3f} | "
        f"{statistics.mean(content):+.3f} | {statistics.median(speedups):.2f} in {len(speedups)} |"
    )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from error
