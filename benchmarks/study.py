"""The tables and pictures of docs/study.md and docs/language_models.md: more experts, same FLOPs.

    python benchmarks/study.py study --picture docs/study.png
    python benchmarks/study.py long_study --picture docs/long_study.png
    python benchmarks/study.py lm_english --picture docs/lm_english.png
    python benchmarks/study.py lm_code --picture docs/lm_code.png
    python benchmarks/study.py study --runs runs/study    # of runs of `make study`

A speed-up is the paper's: steps (or time) of the dense run to a value over those of the sparse run
to the same value. A sparse run is compared with the dense run of its seed.
"""

import re

import matplotlib
import numpy as np
import pandas as pd
from drawing import QUALITY, canvas, draw, finish, focus, over_seeds
from matplotlib.colors import to_hex
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from results import arguments, curve, reached
from scipy.optimize import minimize_scalar

from switch_jax.drawing.figures import GREY, LABEL_SIZE, plain_ticks

args, table = arguments(__doc__, "study", "long_study", "lm_english", "lm_code")
IS_LONG = args.study == "long_study"
DENSE_STEPS = [4_000, 10_000, 20_000, 30_000, 40_000] if IS_LONG else []
VALUES = [-2.3, -2.2, -2.125] if args.study == "study" else []
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
    for now in dense[0][dense[0].step.isin(DENSE_STEPS)].itertuples():
        step, seconds = reached(found[name][0], now.quality)
        if np.isfinite(step):
            ratios = f"{now.step / step:.2f}", f"{now.seconds / seconds:.2f}"
            row(title(name), f"{now.step:,}", f"{now.quality:.3f}", f"{step:,.0f}", *ratios)

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


def power_law(steps, loss):
    """a, b and c of loss = a + b (step / 1000)^-c, by least squares, after a third of the steps."""
    late = steps >= steps[-1] / 3
    x, y = steps[late] / 1000, loss[late]

    def best(c):
        basis = np.stack([np.ones_like(x), x**-c], axis=1)
        factors = np.linalg.lstsq(basis, y)[0]
        return ((basis @ factors - y) ** 2).sum(), factors

    c = minimize_scalar(lambda c: best(c)[0], bounds=(0.01, 3), method="bounded").x
    return *best(c)[1], c


def mean_curve(runs):
    """Mean, low and high of the quality, by step, and the mean seconds."""
    runs = [run.set_index("step") for run in runs]
    mean = over_seeds(pd.concat([run.quality for run in runs], axis=1))
    return mean.assign(seconds=pd.concat([run.seconds for run in runs], axis=1).mean(axis=1))


means = {name: mean_curve(seeds.values()) for name, seeds in found.items()}
steps = means["dense"].index.to_numpy(float)
loss = -means["dense"]["mean"].to_numpy()
law = None
if (steps >= steps[-1] / 6).sum() - (steps > steps[-1] / 2).sum() >= 10:
    law = power_law(steps, loss)
    a, b, c = power_law(steps[steps <= steps[-1] / 2], loss[steps <= steps[-1] / 2])
    miss = a + b * (steps[-1] / 1000) ** -c - loss[-1]
    print(
        f"\nDense: loss = {law[0]:.3f} + {law[1]:.3f} (step / 1,000)^-{law[2]:.3f}; through "
        f"the first half it is {abs(miss):.3f} nats too {'high' if miss > 0 else 'low'} at the end."
    )

if not args.picture:
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
one, two = pairs(best)[0]
(step, seconds), nats = reached(two, one.quality.iloc[-1]), lead(one, two)
side = "ahead of" if nats.iloc[-1] > 0 else "behind"
text = (
    f"At step {nats.index[-1]:,}, the last that both have, {title(best)} were "
    f"{abs(nats.iloc[-1]):.2g} nats {side} the dense model."
)
if np.isfinite(step):
    text = (
        f"{title(best)} reached the dense model's final quality in {step / one.step.iloc[-1]:.0%} "
        f"of its steps and {seconds / one.seconds.iloc[-1]:.0%} of its time. {text} They were "
        f"ahead from step {ahead_from(one, two):,.0f} on."
    )
named = ", ".join(title(name) for name in order if not experts[name])
numbers = ", ".join(str(experts[name]) for name in sparse)
figure, axes = canvas(f"{named.capitalize()}, and {numbers} experts", text, 4, columns=2)

limits = focus([means[name]["mean"] for name in shown])
for ax, is_time in ((axes[0], False), (axes[1], True)):
    for name in order:
        mean = means[name]
        x = mean.seconds / 60 if is_time else mean.index
        draw(ax, x, mean, title(name), colours[name], dashed=not experts[name], markers=not IS_LONG)
    ax.set_title(f"Held-out quality against {'time' if is_time else 'steps'}")
    finish(ax, "training time [min]" if is_time else "step", QUALITY, limits)

# The layout of Figure 1 (left) of Fedus et al. 2022; a line joins models of equal FLOPs a token.
ax, last = axes[2], max(set.intersection(*(set(means[name].index) for name in shown)))
points = {}
for name in order:
    now, run = means[name].loc[last], list(found[name].values())[0].iloc[0]
    points.setdefault(run.flops, []).append((run.parameters, -now["mean"]))
    colour, inside = colours[name], colours[name] if experts[name] else "white"
    ax.vlines(run.parameters, -now["high"], -now["low"], color=colour, linewidth=3, alpha=0.4)
    ax.plot(run.parameters, -now["mean"], "o", color=colour, markersize=6, markerfacecolor=inside)
    ax.annotate(
        title(name).removesuffix(" experts"), (run.parameters, -now["mean"]), xytext=(5, 5),
        textcoords="offset points", color=colour, fontsize=LABEL_SIZE,
    )  # fmt: skip
for joined in points.values():
    ax.plot(*zip(*sorted(joined), strict=True), color=GREY, linewidth=1, zorder=1.9)
ax.set(xscale="log", xlabel="parameters", ylabel=f"loss at step {last:,} [nats]")
ax.set_title("Held-out loss against parameters")
ax.margins(x=0.12, y=0.12)
plain_ticks(ax.yaxis, 6)
ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
as_count = FuncFormatter(lambda x, _: f"{x / 1e6:g} M" if x >= 1e6 else f"{x / 1e3:g} k")
ax.xaxis.set_major_formatter(as_count)
ax.xaxis.set_minor_locator(NullLocator())

# At each evaluation of a sparse run; dashed: over the power law, where the dense curve has ended.
ax, edges = axes[3], []
for name in sparse:
    of_seeds = []
    for one, two in pairs(name):
        later = two[two.step > 0]
        speedups = [reached(one, x)[0] for x in later.quality] / later.step.to_numpy()
        of_seeds.append(pd.Series(speedups, later.step))
    speedup = over_seeds(pd.concat(of_seeds, axis=1))
    draw(ax, speedup.index, speedup, title(name), colours[name])
    edges += [speedup["mean"], speedup["low"], speedup["high"]]
    if law is not None:
        a, b, c = law
        later = means[name].loc[(speedup["mean"].last_valid_index() or 0) + 1 :, "mean"]
        with np.errstate(divide="ignore"):
            at = 1000 * (b / np.maximum(-later - a, 0)) ** (1 / c)
        fit = over_seeds((at / later.index)[at <= 3 * steps[-1]].to_frame())
        if len(fit):
            draw(ax, fit.index, fit, "fit", colours[name], dashed=True, markers=False)
            edges.append(fit["mean"])
# The first steps, where one more or less is a large factor, do not set the range.
later = pd.concat(edges).dropna()
later = later[later.index >= max(edge.index[-1] for edge in edges) / 10]
low, high = min(1, later.min()), max(1, later.max())
margin = 0.08 * (high - low) or 0.1
ax.axhline(1, color=GREY, linewidth=1)
ax.set_title("Speed-up in steps over training")
finish(ax, "step", "speed-up in steps", (np.floor(20 * (low - margin)) / 20, high + margin))
ax.set_xlim(0, 1.02 * max(edge.last_valid_index() or 0 for edge in edges) or 1)
figure.savefig(args.picture)
