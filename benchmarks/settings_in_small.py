"""Optimisers, learning rates, dropout and z-loss with the demo's models.

    python benchmarks/settings_in_small.py    # the tables of docs/training_small_models.md
    python benchmarks/settings_in_small.py --runs runs/settings --train --tables optimizers

Optimisers by learning rate, after 1,250 steps with the demo's schedule; the table of Adafactor, the
paper's optimiser, has more numbers of experts. `2500_steps` is as long as the demo.
The runs of `dropout` read one small corpus more than twelve times.

A run takes three to six minutes on a quiet core; all of them take two and a half hours. Two calls
with other tables go side by side, each under `taskset --cpu-list`. A stopped call goes on where it
was. The seed is one that the docs report nowhere else.
"""

import numpy as np
from in_small import DENSE, SWITCH, parser, train
from results import RESULTS, curve, read

SEED, STEPS, WARMUP = 10, 1250, 400
# By name: the gin file, and what the model has beside it.
MODELS = {
    "dense": (DENSE, ()),
    "experts_2": (SWITCH, ("NUM_EXPERTS=2",)),
    "experts_8": (SWITCH, ()),
    "experts_32": (SWITCH, ("NUM_EXPERTS=32",)),
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


BOTH = ("dense", "experts_8")
OTHERS = [of_optimizer(name) for name in RATES if name != "adafactor"]
OF_THE_DEMO = {
    f"2500_steps_adafactor_{rate:g}": of_rate("adafactor", rate, 2500) for rate in (0.03, 0.06)
}
Z_LOSS = {f"z_loss_{x:g}": (f"ROUTER_Z_LOSS_FACTOR={x}",) for x in (0.001, 0.0, 0.004)}
# By table: its models and its settings.
TABLES = {
    "adafactor": (tuple(MODELS), of_optimizer("adafactor")),
    "optimizers": (BOTH, {name: changed for found in OTHERS for name, changed in found.items()}),
    "2500_steps": (BOTH, OF_THE_DEMO),
    "dropout": (BOTH, DROPOUT),
    "z_loss": (("experts_8",), Z_LOSS),
}


def runs(table):
    """(Setting, model) -> the run's name, its model's gin file and its macros."""
    models, settings = TABLES[table]
    seed = 0 if table == "z_loss" else SEED
    return {
        (setting, model): (
            f"{model}_{setting}",
            MODELS[model][0],
            [*MODELS[model][1], *changed, f"RANDOM_SEED={seed}"],
        )
        for model in models
        for setting, changed in settings.items()
        # A dense model has no experts whose dropout could be changed.
        if not (model == "dense" and "expert" in setting)
    }


args = parser(__doc__, TABLES).parse_args()
if args.train:
    for name in args.tables:
        for run, model, macros in runs(name).values():
            train(args.runs / run, model, macros)
table = read(args.runs or RESULTS / "settings.parquet")
for name in args.tables:
    models, settings = TABLES[name]
    quality = {cell: curve(table, run).quality.iloc[-1] for cell, (run, _, _) in runs(name).items()}
    # Of the experts over the dense model, or over the first setting.
    ahead = ["ahead by"] if len(models) < 3 else []
    print(f"\n| {name} | {' | '.join([*models, *ahead])} |".replace("_", " "))
    print("|---" * (1 + len(models) + len(ahead)) + "|")
    for setting in settings:
        cells = [quality.get((setting, model), np.nan) for model in models]
        texts = [f"{cell:.3f}" for cell in cells]
        if ahead:
            reference = cells[0] if len(models) > 1 else quality[next(iter(settings)), models[0]]
            texts.append(f"{cells[-1] - reference:+.3f}")
        texts = ["" if "nan" in text else text for text in texts]
        print(f"| {setting.replace('_', ' ')} | {' | '.join(texts)} |")
    print()
    for run, _, _ in runs(name).values():
        for end in table[(table.run == run) & table.dropped.notna()][-1:].itertuples():
            print(f"{run}: at the end {end.dropped:.1%} dropped, router entropy {end.entropy:.2f}")
