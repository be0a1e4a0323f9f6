"""Who chooses, and who gets the slots, with the demo's models, three seeds each.

    python benchmarks/routing_in_small.py
    python benchmarks/routing_in_small.py --runs runs/routing --train    # trains what is missing

A table for 8 and one for 32 experts: the default, slots by gate, experts that choose (both in the
encoder), and balance by a bias, at capacity factors of 1.0 and 1.25, and the default at 2.0. A run
takes six to eight minutes on a quiet core. A stopped call goes on where it was. The columns are
those of paper_in_small.py; below a table stands each pair of runs with the same seed.
"""

from in_small import SWITCH, last, parser, print_table, train
from results import RESULTS, read

RULES = {
    "tokens": (),
    "by_gate": ("ENCODER_ROUTER_TYPE=batch_prioritized",),
    "experts_choose": ("ENCODER_ROUTER_TYPE=experts_choose",),
    "bias": ("LOAD_BALANCE=bias",),
}
# The rows of a table: rule and capacity factor. The first one is what the others are ahead of.
ROWS = [*((rule, factor) for factor in (1.25, 1.0) for rule in RULES), ("tokens", 2.0)]

args = parser(__doc__, ["8", "32"]).parse_args()
if args.train:
    for experts in args.tables:
        for rule, factor in ROWS:
            for seed in range(3):
                macros = (f"NUM_EXPERTS={experts}", f"TRAIN_EXPERT_CAPACITY_FACTOR={factor}")
                folder = args.runs / f"experts_{experts}_{rule}_{factor}_{seed}"
                train(folder, SWITCH, [*macros, *RULES[rule], f"RANDOM_SEED={seed}"])
table = read(args.runs or RESULTS / "routing.parquet")
for experts in args.tables:
    names = {(rule, factor): f"experts_{experts}_{rule}_{factor}" for rule, factor in ROWS}
    names = {row: run for row, run in names.items() if len(last(table, run)) == 3}
    labels = {row: f"{row[0].replace('_', ' ')}, {row[1]}" for row in names}
    print(f"\n{experts} experts")
    print_table(table, {labels[row]: run for row, run in names.items()})
    quality = {row: last(table, run) for row, run in names.items()}
    first = next(iter(names))
    print()
    for row in names:
        rule, factor = row
        larger = (rule, 1.25) if (rule, 1.25) in names else first
        compared = {first: labels[first]} if row != first else {}
        if factor == 1.0 and larger != first:
            compared[larger] = "1.25"
        for other, name in compared.items():
            differences = ", ".join(f"{nats:+.3f}" for nats in quality[row] - quality[other])
            print(f"{labels[row]} ahead of {name}: {differences}")
