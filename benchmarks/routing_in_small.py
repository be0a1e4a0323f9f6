"""Who chooses, and who gets the slots, with the demo's models, three seeds each.

    python benchmarks/routing_in_small.py                      # trains what is missing, and prints
    python benchmarks/routing_in_small.py --experts 32 --print_only    # without training

A table for 8 and one for 32 experts: the default, slots by gate, experts that choose (both in the
encoder), and balance by a bias, at capacity factors of 1.0 and 1.25, and the default at 2.0. A run
takes six to eight minutes on a quiet core. A stopped call goes on where it was. The columns are
those of paper_in_small.py; below a table stands each pair of runs with the same seed.
"""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

from paper_in_small import Row, lines, train_demo

from switch_jax.errors import UserError
from switch_jax.reports.runs import read_run

RULES = {
    "tokens": (),
    "by_gate": ("ENCODER_ROUTER_TYPE=batch_prioritized",),
    "experts_choose": ("ENCODER_ROUTER_TYPE=experts_choose",),
    "bias": ("LOAD_BALANCE=bias",),
}
# The rows of a table: rule and capacity factor. The first one is what the others are ahead of.
ROWS = [*((rule, factor) for factor in (1.25, 1.0) for rule in RULES), ("tokens", 2.0)]


def main() -> None:
    """Trains the runs that are missing, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experts", nargs="+", type=int, default=[8, 32])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/routing"))
    parser.add_argument(
        "--print_only", action="store_true", help="do not train: rows that lack a seed are left out"
    )
    args = parser.parse_args()
    for experts in args.experts:
        rows: dict[tuple[str, float], Row] = {}
        for rule, factor in ROWS:
            name = f"experts_{experts}_{rule}_{factor}"
            folders = {seed: args.runs / f"{name}_{seed}" for seed in args.seeds}
            for seed, folder in folders.items() if not args.print_only else ():
                macros = (f"NUM_EXPERTS={experts}", f"TRAIN_EXPERT_CAPACITY_FACTOR={factor}")
                train_demo(folder, "switch_demo", [*macros, *RULES[rule], f"RANDOM_SEED={seed}"])
            if args.print_only and not all(folder.is_dir() for folder in folders.values()):
                continue
            label = f"{rule.replace('_', ' ')}, {factor}"
            rows[rule, factor] = Row(label, [read_run(folder) for folder in folders.values()])
        table = [*lines(list(rows.values())), "", *pairs(rows)]
        print(f"\n{experts} experts\n\n" + "\n".join(table), flush=True)


def pairs(rows: Mapping[tuple[str, float], Row]) -> Iterator[str]:
    """How far runs are ahead of those of the same seed: of other rules, and of other factors."""
    first = next(iter(rows.values()))
    for (rule, factor), row in rows.items():
        if row is not first:
            yield f"{row.label} ahead of {first.label}: {differences(row, first)}"
        larger = rows.get((rule, 1.25), first)
        if factor == 1.0 and larger is not first:
            yield f"{row.label} ahead of 1.25: {differences(row, larger)}"


def differences(row: Row, other: Row) -> str:
    """In nats, a number for each seed."""
    return ", ".join(f"{nats:+.3f}" for nats in row.last - other.last)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from error
