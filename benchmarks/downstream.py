"""The table and the picture of what the demo's models know, in docs/experiments.md (Figure 13).

    python benchmarks/downstream.py --picture docs/downstream.png
    python benchmarks/downstream.py --runs runs/downstream    # of the runs of `make downstream`

Exact match on the questions of `factbook_qa_cloze`, per cent, of the models t5_0, switch_0 and so
on, which began with english_t5_0, english_switch_0 and so on.
"""

import numpy as np
import pandas as pd
from drawing import DASHED, QUALITY, canvas, draw, finish, focus, over_seeds
from results import arguments, curve

from switch_jax.drawing.figures import GREY, LABEL_SIZE
from switch_jax.reports.routers import draw_load

COLOURS = {"t5": "#E69F00", "switch": "#56B4E9"}
SEEDS = range(3)

args, table = arguments(__doc__, "downstream")
cloze = table[(table.kind == "generated") & (table.task == "factbook_qa_cloze")]


def of_seeds(rows, model, column):
    """A column of the records of a model [steps, seeds]."""
    by_seed = {seed: rows[rows.run == f"{model}_{seed}"] for seed in SEEDS}
    columns = {seed: one.set_index("step")[column] for seed, one in by_seed.items() if len(one)}
    return pd.DataFrame(columns).sort_index()


scores = {model: of_seeds(cloze, model, "em") for model in COLOURS}
best = {model: of_model.max() for model, of_model in scores.items()}
print("| step | dense | 8 experts |\n|---|---|---|")
for step in scores["t5"].index:
    cells = [", ".join(f"{em:.1f}" for em in scores[model].loc[step]) for model in COLOURS]
    print(f"| {step:,} | {' | '.join(cells)} |")
cells = [f"{em.mean():.2f} ± {em.std():.2f}" for em in best.values()]
print(f"| best: mean ± standard deviation | {' | '.join(cells)} |")

evals = table[(table.kind == "eval") & (table.task == "all")]
quality = {model: of_seeds(evals, model, "quality") for model in COLOURS}
ends = ", ".join(f"{model} {quality[model].iloc[-1].mean():.3f}" for model in COLOURS)
print(f"\nHeld-out quality at the end, mean of the seeds: {ends}")
tuned = table[(table.kind == "generated") & table.run.str.contains("tuned")].groupby("run").em.max()
if len(tuned):
    print(
        "Fine-tuned, best exact match:", ", ".join(f"{run} {em:.1f}" for run, em in tuned.items())
    )

if not args.picture:
    raise SystemExit
figure, axes = canvas(f"T5 and Switch with 8 experts, seeds: {len(best['t5'])}", "", 6)

ax = axes[0]  # the layout of Figure 13 of Fedus et al. 2022
for model, colour in COLOURS.items():
    upstream = [
        curve(table, f"english_{model}_{seed}").quality.iloc[-1] for seed in best[model].index
    ]
    (x, dx), (y, dy) = ((np.mean(v), np.std(v, ddof=1)) for v in (upstream, best[model]))
    inside = "white" if model == "t5" else colour
    bar = {"color": colour, "linewidth": 3, "alpha": 0.4, "solid_capstyle": "butt"}
    ax.plot([x, x], [y - dy, y + dy], **bar)
    ax.plot([x - dx, x + dx], [y, y], **bar)
    ax.plot(x, y, "o", color=colour, markersize=7, mfc=inside, label=model)
legend = [
    ax.plot([], [], color=GREY, linewidth=1, linestyle=style, marker="o", markersize=6, mfc=inside)
    for style, inside in ((DASHED, "white"), ("-", GREY))
]
ax.legend([line for (line,) in legend], ["dense", "sparse"], frameon=False, fontsize=LABEL_SIZE)
ax.set_title("factbook_qa_cloze against upstream\nquality")
finish(ax, f"upstream {QUALITY}", "best em [%]")
ax.margins(x=0.08, y=0.1)

seconds = {model: of_seeds(evals, model, "seconds").mean(axis=1) / 60 for model in COLOURS}
train = table[table.kind == "train"]
training = {model: of_seeds(train, model, "quality") for model in COLOURS}
for ax, name, values, x_label, y_label, by_time in (
    (axes[1], "factbook_qa_cloze: em", scores, "step of the run", "em [%]", False),
    (axes[2], "Held-out quality against steps", quality, "step", QUALITY, False),
    (axes[3], "Held-out quality against time", quality, "training time [min]", QUALITY, True),
    (axes[4], "Training quality against steps", training, "step", QUALITY, False),
):
    means = {model: over_seeds(of_model) for model, of_model in values.items()}
    for model, mean in means.items():
        x = seconds[model] if by_time else mean.index
        is_training = values is training
        draw(ax, x, mean, model, COLOURS[model], dashed=model == "t5", markers=not is_training)
    ax.set_title(name)
    limits = (None, None) if values is scores else focus([mean["mean"] for mean in means.values()])
    finish(ax, x_label, y_label, limits)

first = f"switch_{best['switch'].index[0]}"
routed = train[(train.run == first) & train.load.notna()].sort_values("step")
axes[5].set_title(f"{first}: Encoder layer 0 (Switch)")
draw_load(axes[5], routed.step.to_numpy(), np.stack(routed.load))
figure.savefig(args.picture)
