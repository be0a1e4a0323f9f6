"""The table and the picture of 100 languages in docs/experiments.md: mT5 against mSwitch.

    python benchmarks/languages.py --picture docs/languages.png
    python benchmarks/languages.py --runs runs/languages    # of the runs of `make languages`

Values are held-out negative log perplexities after the last step; "ahead by" is the mean, and the
speed-up the median of the steps of mT5 over those of mSwitch to the same value, where it has it.
"""

import numpy as np
from drawing import QUALITY, canvas, draw, finish, focus, label_ends, over_seeds
from results import arguments, curve, reached

from switch_jax.drawing.figures import GREY, plain_ticks
from switch_jax.reports.routers import draw_load

# With more than 100,000 characters of training text, as `make languages` builds it.
MUCH_TEXT = (
    "ar ca cs da de el en es et eu fa fi fr gl gu hi hu id it ja km ko lv mr nl no pl pt ro ru sl "
    "sr sv ta te tr uk vi zh"
).split()
COLOURS = {"mt5": "#009E73", "mswitch": "#56B4E9"}

args, table = arguments(__doc__, "languages")
both = {run: curve(table, run) for run in COLOURS}
(mt5, mswitch), end = both.values(), both["mt5"].iloc[-1]

# By language: what both end with, and the speed-up.
own = table[(table.kind == "eval") & (table.task != "all")].sort_values("step")
ends = own.groupby(["task", "run"])[["quality", "content"]].last().unstack("run")
languages = ends.quality.assign(
    code=[task.split(".")[-1] for task in ends.index],
    ahead=ends.quality.mswitch - ends.quality.mt5,
    content=ends.content.mswitch - ends.content.mt5,
    speedup=[
        end.step / reached(curve(table, "mswitch", task), quality)[0]
        for task, quality in ends.quality.mt5.items()
    ],
).sort_values("mt5", ascending=False, kind="stable")

step, seconds = reached(mswitch, end.quality)
ahead = mswitch.quality.iloc[-1] - end.quality
print(
    f"All languages: {end.quality:.3f} and {mswitch.quality.iloc[-1]:.3f}, "
    f"{mswitch.content.iloc[-1] - end.content:+.3f} without sentinels and EOS; a speed-up of "
    f"{end.step / step:.2f} in steps (at {step:,.0f}) and {end.seconds / seconds:.2f} in time.\n"
)
print("| training text | languages | ahead in | ahead by | without sentinels and EOS | speed-up |")
print("|---|---|---|---|---|---|")
much = languages.code.isin(MUCH_TEXT)
for name, some in (("more than 100,000 characters", languages[much]), ("less", languages[~much])):
    there = some.speedup.dropna()
    print(
        f"| {name} | {len(some)} | {(some.ahead > 0).sum()} | {some.ahead.mean():+.3f} | "
        f"{some.content.mean():+.3f} | {there.median():.2f}, in {len(there)} languages |"
    )

if not args.picture:
    raise SystemExit
text = f"Switch with 16 experts ended {abs(ahead):.2f} nats {'ahead' if ahead > 0 else 'behind'}."
if np.isfinite(step):
    share = f"{step / end.step:.0%} of its steps and {seconds / end.seconds:.0%} of its time"
    text += f" It reached the dense model's final quality in {share}."
figure, axes = canvas("mT5 and mSwitch", text, 6, wide=1)

ax = axes[0]  # the layout of Figure 7 of Fedus et al. 2022
for run, colour in COLOURS.items():
    inside = "white" if run == "mt5" else colour
    ax.plot(languages[run].to_numpy(), "o", label=run, color=colour, markersize=4, mfc=inside)
ax.set_xticks(range(len(languages)), labels=languages.code, rotation=90, fontsize=6)
ax.set(ylabel=QUALITY, title="Held-out quality by task")
ax.margins(x=0.01)
plain_ticks(ax.yaxis, 6)
label_ends(ax)

ax = axes[1]  # of Figure 8
ax.hist(languages.speedup.dropna(), bins="auto", color=GREY, edgecolor="white")
ax.axvline(1, color="#222222", linewidth=1, linestyle=":")
ax.set(xlabel="speed-up in steps", ylabel="tasks", title="Speed-up by task: mswitch")

# Thin lines mark the dense run's final value, and where the sparse run reaches it.
limits = focus([run.set_index("step").quality for run in both.values()])
for ax, what, where, ratio, size, form in (
    (axes[2], "steps", step, end.step / step, 1, "at step {:,.0f}"),
    (axes[3], "time", seconds, end.seconds / seconds, 60, "at {:.3g} min"),
):
    for name, run in both.items():
        x = run.step if what == "steps" else run.seconds / size
        mean = over_seeds(run[["quality"]])
        draw(ax, x, mean, name, COLOURS[name], dashed=name == "mt5")
    ax.set_title(f"Held-out quality against {what}")
    finish(ax, "step" if what == "steps" else "training time [min]", QUALITY, limits)
    if np.isnan(where):
        continue
    x = where / size
    ax.axhline(end.quality, color=GREY, linewidth=0.8, linestyle=":")
    ax.vlines(x, limits[0], end.quality, color=GREY, linewidth=0.8, linestyle=":")
    ax.plot(x, end.quality, "o", color="none", markeredgecolor="#222222", markersize=7)
    ax.annotate(
        f"{ratio:.2f}× speed-up\n{form.format(x)}", (x, 0.03), xycoords=ax.get_xaxis_transform(),
        xytext=(-4, 0), textcoords="offset points", ha="right", va="bottom", fontsize=8.5,
    )  # fmt: skip

train = table[table.kind == "train"]
of_runs = {run: train[train.run == run].set_index("step") for run in COLOURS}
for name, run in of_runs.items():
    mean = over_seeds(run[["quality"]])
    draw(axes[4], run.index, mean, name, COLOURS[name], dashed=name == "mt5", markers=False)
axes[4].set_title("Training quality against steps")
finish(axes[4], "step", QUALITY, focus([run.quality for run in of_runs.values()]))

routed = of_runs["mswitch"].dropna(subset=["load"]).reset_index()
axes[5].set_title("mswitch: Encoder layer 0 (Switch)")
draw_load(axes[5], routed.step.to_numpy(), np.stack(routed.load))
figure.savefig(args.picture)
