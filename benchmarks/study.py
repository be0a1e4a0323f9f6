"""The tables and pictures of docs/study.md and docs/language_models.md: more experts, same FLOPs.

    python benchmarks/study.py study --picture docs/study.png
    python benchmarks/study.py long_study --picture docs/long_study.png --headline docs/headline.png
    python benchmarks/study.py lm_english --picture docs/lm_english.png
    python benchmarks/study.py lm_code --picture docs/lm_code.png
    python benchmarks/study.py study --runs runs/study    # of runs of `make study`

A speed-up is the paper's: steps (or time) of the dense run to a value over those of the sparse run
to the same value. A sparse run is compared with the dense run of its seed. The headline is two
charts of the picture, to be read in ten seconds.
"""

import re

import matplotlib
import numpy as np
import pandas as pd
from drawing import QUALITY, canvas, draw, finish, focus, over_seeds
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from results import arguments, curve, reached

from switch_jax.drawing.figures import GREY, LABEL_SIZE, plain_ticks

args, table = arguments(__doc__, "study", "long_study", "lm_english", "lm_code")
IS_LONG = args.study == "long_study"
DENSE_STEPS = [4_000, 10_000, 20_000, 30_000, 40_000] if IS_LONG else []
VALUES = [-2.3, -2.2, -2.125] if args.study == "study" else []
SOONER = "dense steps / steps with experts"
LEFT_OUT = ["dense_large", "experts_8_factor_1"] if IS_LONG else []  # of the picture

# By configuration: its runs by seed, as "dense" -> {0: curve}; curves that were never evaluated
# after step 0 are left out.
facts = table.drop_duplicates("run").sort_values(["num_experts", "parameters", "run"])
found = {}
for run in facts.itertuples():
    evaluated = curve(table, run.run)
    if len(evaluated) > 1:
        found.setdefault(run.run.rpartition("_")[0], {})[run.seed] = evaluated
dense = found["dense"]
others = {name: seeds for name, seeds in found.items() if name != "dense"}
experts = {name: list(seeds.values())[0].num_experts.iloc[0] for name, seeds in found.items()}


def title(name):
    return re.sub(r"^experts (\d+)$", r"\1 experts", name.replace("_", " "))


def lead(of_dense, other, column="quality"):
    """How far another run is ahead, nats, at the steps after 0 that either has [steps]."""
    one, two = (c[c.step > 0].dropna(subset=[column]) for c in (of_dense, other))
    steps = np.union1d(one.step, two.step)
    last = min(one.step.max(), two.step.max())
    steps = steps[(steps >= max(one.step.min(), two.step.min())) & (steps <= last)]
    ahead = np.interp(steps, two.step, two[column]) - np.interp(steps, one.step, one[column])
    return pd.Series(ahead, steps)


def ahead_from(of_dense, other):
    """The step from which on the other run is ahead; NaN where it ends behind."""
    nats = lead(of_dense, other)
    if nats.iloc[-1] <= 0:
        return np.nan
    behind = np.flatnonzero(nats <= 0)
    if not len(behind):
        return nats.index[0]
    before, after = behind[-1], behind[-1] + 1
    part = nats.iloc[before] / (nats.iloc[before] - nats.iloc[after])
    return nats.index[before] + part * (nats.index[after] - nats.index[before])


def pairs(name):
    """(The dense run, the other one), of each seed."""
    return [(dense[seed], other) for seed, other in found[name].items() if seed in dense]


def each(values, form, mean=True):
    """The mean of several seeds, and each; nothing where it is not known."""
    values = list(values)
    if not np.isfinite(values).any():
        return ""
    known = ", ".join(form.format(x) for x in values)
    return f"{form.format(np.mean(values))} ({known})" if mean and len(values) > 1 else known


def row(*cells):
    """A row of a table; what is not known is empty."""
    print("| " + " | ".join("" if "nan" in cell else cell for cell in cells) + " |")


def head(*cells):
    print()
    row(*cells)
    print("|---" * len(cells) + "|")


# What each ends with. "Sooner": the dense run's last step over the step that has its value.
head(
    "model", "parameters", "held-out", "ahead by", "without sentinels and EOS",
    "speed-up in steps", "in time", "ahead from step", "ms a step (ratio)", "dropped",
)  # fmt: skip
of_dense = 1000 * dense[0].seconds.iloc[-1] / dense[0].step.iloc[-1]
for name, seeds in found.items():
    runs = list(seeds.values())
    cells = ["", "", "", "", ""]
    if name != "dense":
        at = [(one, reached(two, one.quality.iloc[-1])) for one, two in pairs(name)]
        cells = [
            each([lead(*pair).iloc[-1] for pair in pairs(name)], "{:+.3f}"),
            each([lead(*pair, "content").iloc[-1] for pair in pairs(name)], "{:+.3f}"),
            each([one.step.iloc[-1] / step for one, (step, _) in at], "{:.2f}"),
            each([one.seconds.iloc[-1] / seconds for one, (_, seconds) in at], "{:.2f}"),
            each([ahead_from(*pair) for pair in pairs(name)], "{:,.0f}"),
        ]
    last = runs[0].iloc[-1]
    of_step = 1000 * last.seconds / last.step
    routed = table[(table.run == last.run) & table.dropped.notna()]
    row(
        title(name), f"{last.parameters:,}",
        each([run.quality.iloc[-1] for run in runs], "{:.3f}", mean=False), *cells,
        f"{of_step:.1f} ({of_step / of_dense:.2f})",
        f"{routed.dropped.iloc[-1]:.2%}" if len(routed) else "",
    )  # fmt: skip

sparse = [name for name in others if experts[name] and 0 in found[name]]
if IS_LONG:
    head("model", "dense at step", "value", "reached at step", "speed-up in steps", "in time")
for name in sparse:
    for step in DENSE_STEPS:
        at = []  # of each seed that came so far: the dense run there, and the other at its value
        for one, two in pairs(name):
            now = one[one.step == step]
            if len(now) and np.isfinite(reached(two, now.quality.item())[0]):
                at.append((now, reached(two, now.quality.item())))
        if at:
            row(
                title(name), f"{step:,}",
                each([now.quality.item() for now, _ in at], "{:.3f}", mean=False),
                each([steps for _, (steps, _) in at], "{:,.0f}", mean=False),
                each([step / steps for _, (steps, _) in at], "{:.2f}"),
                each([now.seconds.item() / seconds for now, (_, seconds) in at], "{:.2f}"),
            )  # fmt: skip

if "dense_large" in found:
    (large,) = found["dense_large"].values()
    three = ["experts_8", "experts_32", "dense_large"]
    values = VALUES if all(0 in found.get(name, ()) for name in three) else []
    if values:
        head("held-out value", "8 experts", "32 experts", "dense large", "its time over that of 32")
    for value in values:
        at = [reached(found[name][0], value) for name in three]
        cells = [f"step {steps:,.0f}, {seconds / 60:.1f} min" for steps, seconds in at]
        row(f"{value}", *cells, f"{at[-1][1] / at[-2][1]:.2f}")
    head("beside it", "best of both", "dense large at step", "at step", "its time over theirs")
    for name in sparse:
        other = found[name][0]
        best = min(large.quality.max(), other.quality.max())
        (step, seconds), (steps, time) = reached(large, best), reached(other, best)
        row(title(name), f"{best:.3f}", f"{step:,.0f}", f"{steps:,.0f}", f"{seconds / time:.2f}")


def mean_curve(runs):
    """Mean, low and high of the quality, by step, and the mean seconds."""
    runs = [run.set_index("step") for run in runs]
    mean = over_seeds(pd.concat([run.quality for run in runs], axis=1))
    return mean.assign(seconds=pd.concat([run.seconds for run in runs], axis=1).mean(axis=1))


means = {name: mean_curve(seeds.values()) for name, seeds in found.items()}
if not (args.picture or args.headline):
    raise SystemExit
shown = [name for name in found if name not in LEFT_OUT]
order = sorted(shown, key=lambda name: (experts[name], name))
sparse = [name for name in order if experts[name]]
if not sparse or not all(pairs(name) for name in sparse):
    print("\nNo picture: it needs sparse runs, each with a dense run of its seed.")
    raise SystemExit
colours = {"dense": "#D55E00", "dense_large": "#E69F00"}
shades = matplotlib.colormaps["viridis"](np.linspace(0.72, 0, len(sparse)))
colours |= dict(zip(sparse, map(to_hex, shades), strict=True))
best = max(sparse, key=lambda name: np.mean([lead(*pair).iloc[-1] for pair in pairs(name)]))
limits = focus([means[name]["mean"] for name in shown])


def draw_quality(ax, names, *, is_time=False):
    """Quality over steps or over time, in minutes."""
    for name in names:
        mean = means[name]
        x = mean.seconds / 60 if is_time else mean.index
        draw(ax, x, mean, title(name), colours[name], dashed=not experts[name], markers=not IS_LONG)


def speedup(name):
    """By steps of the dense model: how many times fewer the other takes to the same value."""
    of_seeds = []
    for one, two in pairs(name):
        later = one[one.step > 0]
        took = [reached(two, quality)[0] for quality in later.quality]
        of_seeds.append(pd.Series(later.step.to_numpy() / took, later.step))
    return over_seeds(pd.concat(of_seeds, axis=1))


def draw_speedups(ax):
    """The speed-ups of models with experts; returns limits of y.

    In the first steps one more or less is a large factor: they do not set the limits.
    """
    speedups = {name: speedup(name) for name in sparse}
    for name, ratios in speedups.items():
        draw(ax, ratios.index, ratios, title(name), colours[name], markers=not IS_LONG)
    ax.axhline(1, color=GREY, linewidth=1)
    edges = pd.concat([ratios[edge] for ratios in speedups.values() for edge in ratios]).dropna()
    edges = edges[edges.index >= steps_of_dense / 10]
    low, high = min(1, edges.min()), max(1, edges.max())
    margin = 0.08 * (high - low) or 0.1
    return np.floor(20 * (low - margin)) / 20, high + margin


def draw_losses(ax):
    """Loss over parameters, as in Figure 1 (left) of Fedus et al. 2022, at the last common step.

    A line joins models of equal FLOPs a token.
    """
    last = max(set.intersection(*(set(means[name].index) for name in shown)))
    points = {}
    for name in order:
        now, run = means[name].loc[last], list(found[name].values())[0].iloc[0]
        points.setdefault(run.flops, []).append((run.parameters, -now["mean"]))
        colour, inside = colours[name], colours[name] if experts[name] else "white"
        ax.vlines(run.parameters, -now["high"], -now["low"], color=colour, linewidth=3, alpha=0.4)
        ax.plot(
            run.parameters, -now["mean"], "o", color=colour, markersize=6, markerfacecolor=inside
        )
        ax.annotate(
            title(name).removesuffix(" experts"), (run.parameters, -now["mean"]), xytext=(5, 5),
            textcoords="offset points", color=colour, fontsize=LABEL_SIZE,
        )  # fmt: skip
    for joined in points.values():
        ax.plot(*zip(*sorted(joined), strict=True), color=GREY, linewidth=1, zorder=1.9)
    ax.set(xscale="log", xlabel="parameters", ylabel=f"loss at step {last:,} [nats]")
    ax.margins(x=0.12, y=0.12)
    plain_ticks(ax.yaxis, 6)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    as_count = FuncFormatter(lambda x, _: f"{x / 1e6:g} M" if x >= 1e6 else f"{x / 1e3:g} k")
    ax.xaxis.set_major_formatter(as_count)
    ax.xaxis.set_minor_locator(NullLocator())


def summary():
    """Sentences on the best model and the dense one."""
    one, two = pairs(best)[0]
    (step, seconds), nats = reached(two, one.quality.iloc[-1]), lead(one, two)
    side = "ahead of" if nats.iloc[-1] > 0 else "behind"
    text = (
        f"At step {nats.index[-1]:,}, the last that both have, {title(best)} were "
        f"{abs(nats.iloc[-1]):.2g} nats {side} the dense model."
    )
    if np.isfinite(step):
        text = (
            f"{title(best)} reached the dense model's final quality in "
            f"{step / one.step.iloc[-1]:.0%} of its steps and "
            f"{seconds / one.seconds.iloc[-1]:.0%} of its time. {text} They were ahead from step "
            f"{ahead_from(one, two):,.0f} on."
        )
    return f"Seed {two.seed.iloc[0]}: {text}" if len(pairs(best)) > 1 else text


steps_of_dense = means["dense"].index[-1]
if args.picture:
    named = ", ".join(title(name) for name in order if not experts[name])
    numbers = ", ".join(str(experts[name]) for name in sparse)
    heading = f"{named.capitalize()}, and {numbers} experts"
    figure, axes = canvas(heading, summary(), 4, columns=2)
    draw_quality(axes[0], order)
    finish(axes[0], "step", QUALITY, limits)
    draw_quality(axes[1], order, is_time=True)
    finish(axes[1], "training time [min]", QUALITY, limits)
    draw_losses(axes[2])
    finish(axes[3], "step of the dense model", SOONER, draw_speedups(axes[3]))
    for ax, text in zip(
        axes,
        (
            "Held-out quality against steps",
            "Held-out quality against time",
            "Held-out loss against parameters",
            "How many times sooner in steps",
        ),
        strict=True,
    ):
        ax.set_title(text)
    figure.savefig(args.picture)

if args.headline:
    figure = Figure((6, 2.9), layout="constrained", dpi=300)
    left, right = figure.subplots(1, 2)
    for name in ("dense", best):
        mean = means[name]["mean"]
        look = {"dashed": not experts[name], "markers": False}
        draw(left, mean.index, means[name], "_", colours[name], **look)
        end = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        left.annotate(title(name), (mean.index[-1], mean.iloc[-1]), color=colours[name], **end)
    last, sooner = means["dense"]["mean"].iloc[-1], speedup(best)["mean"].iloc[-1]
    arrow = {"arrowstyle": "->", "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
    left.annotate("", (steps_of_dense / sooner, last), (steps_of_dense, last), arrowprops=arrow)
    middle = steps_of_dense * (1 + 1 / sooner) / 2, last
    words = {"textcoords": "offset points", "ha": "center", "va": "top"}
    left.annotate(f"{sooner:.2f} times", middle, (-9, -3), **words)
    finish(left, "steps", QUALITY, limits)
    left.set_title("Quality, higher is better")
    limits = draw_speedups(right)
    finish(right, "steps of the dense model", SOONER, limits)
    right.set_title("Times sooner than dense")
    figure.savefig(args.headline)
