"""What the pictures of the studies share: their look, labels at the ends of lines, and ticks."""

import math
import textwrap

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, ScalarFormatter

GREY = "#666666"
DASHED = (0, (4, 2))
ROW = 2.9  # inches: height of a row of charts
LABEL_SIZE = 8.5
QUALITY = "neg. log perplexity [nats]"

matplotlib.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": GREY,
        "axes.grid": True,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.titlepad": 10,
        "grid.color": "#e6e6e6",
        "grid.linewidth": 0.7,
        "lines.linewidth": 1.6,
        "lines.markersize": 3,
        "xtick.color": "#444444",
        "ytick.color": "#444444",
        "axes.labelcolor": "#222222",
    }
)


def canvas(
    title: str, text: str, charts: int, columns: int = 3, wide: int = 0
) -> tuple[Figure, list[Axes]]:
    """A figure with a headline and axes for its charts; the first `wide` ones take a row each."""
    width = {2: 10.0, 3: 12.0}[columns]  # inches that are 1800 pixels
    lines = textwrap.wrap(text, round(12.5 * width))
    head = 0.5 + 0.2 * len(lines)
    rows = wide + math.ceil((charts - wide) / columns)
    figure = Figure((width, head + ROW * rows), layout="constrained", dpi=1800 / width)
    top, body = figure.subfigures(2, 1, height_ratios=[head, ROW * rows])
    top.text(0.01, 1 - 0.12 / head, title, va="top", fontsize=13, weight="bold")
    top.text(0.01, 1 - 0.4 / head, "\n".join(lines), va="top", fontsize=10, linespacing=1.35)
    grid = body.add_gridspec(rows, columns)
    cells = [grid[row, :] for row in range(wide)]
    cells += [grid[wide + i // columns, i % columns] for i in range(charts - wide)]
    # A subfigure each: one chart's long labels must not push the others about.
    return figure, [body.add_subfigure(cell).add_subplot() for cell in cells]


def over_seeds(values: pd.DataFrame) -> pd.DataFrame:
    """Mean, low and high [steps] of values [steps, seeds]: of two seeds the two, of more a standard
    deviation either side of the mean, and of one none."""
    mean, seeds = values.mean(axis=1, skipna=False), values.shape[1]
    low = high = mean * np.nan
    if seeds == 2:
        low, high = values.min(axis=1, skipna=False), values.max(axis=1, skipna=False)
    elif seeds > 2:
        deviation = values.std(axis=1, skipna=False)
        low, high = mean - deviation, mean + deviation
    return pd.DataFrame({"mean": mean, "low": low, "high": high})


def draw(
    ax: Axes,
    x: pd.Series,
    curve: pd.DataFrame,
    label: str,
    colour: str,
    *,
    dashed: bool = False,
    markers: bool = True,
) -> None:
    """One line: x [steps], and `curve` of `over_seeds`; its label is written by `finish`."""
    marker = "o" if markers and len(x) <= 30 or len(x) == 1 else None
    style = DASHED if dashed else "-"
    ax.plot(x, curve["mean"], color=colour, linestyle=style, marker=marker, label=label)
    ax.fill_between(x, curve["low"], curve["high"], color=colour, alpha=0.2, linewidth=0)


def finish(ax: Axes, x_label: str, y_label: str, limits: tuple = (None, None)) -> None:
    """Round ticks, and each line's label in its colour beside the chart, at the line's end."""
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.margins(x=0.02)
    ax.set_ylim(*limits)
    ticks(ax.xaxis, 5 if ax.get_window_extent().width / ax.figure.dpi > 3 else 4)
    ticks(ax.yaxis, 6)
    label_ends(ax)


def ticks(axis, most: int) -> None:
    """Round numbers without exponents or offsets; commas from 1,000 on."""
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
    if max(map(abs, axis.get_view_interval())) >= 1000:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    else:
        axis.set_major_formatter(ScalarFormatter(useOffset=False))


def label_ends(ax: Axes) -> None:
    """The labels of lines and points, moved apart where they would touch."""
    low, high = ax.get_ylim()
    ends = []
    for line in ax.get_lines():
        y = np.asarray(line.get_ydata(), float)
        if not line.get_label().startswith("_") and np.isfinite(y).any():
            end = (y[np.isfinite(y)][-1] - low) / (high - low)
            ends.append((min(max(end, 0), 1), line))
    ends.sort(key=lambda end: end[0])
    gap = 1.2 * LABEL_SIZE / (ax.get_window_extent().height * 72 / ax.figure.dpi)
    places = [height for height, _ in ends]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    for i in reversed(range(len(places))):
        places[i] = min(places[i], places[i + 1] - gap if i + 1 < len(places) else 1)
    for place, (_, line) in zip(places, ends, strict=True):
        ax.annotate(
            line.get_label(),
            (1, place),
            xytext=(4, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            color=line.get_color(),
            fontsize=LABEL_SIZE,
            va="center",
            annotation_clip=False,
        )


def focus(curves: list[pd.Series]) -> tuple[float | None, float | None]:
    """Limits of y without the steep first quarter of the steps; the curves are by step."""
    known = [curve.dropna() for curve in curves]
    start = max(curve.index[-1] for curve in known) / 4
    lows = [
        min(np.interp(start, curve.index, curve), *curve[curve.index >= start])
        for curve in known
        if curve.index[-1] >= start
    ]
    low, high = min(lows), max(curve.max() for curve in known)
    if low == high:
        return None, None
    return low - 0.05 * (high - low), high + 0.08 * (high - low)


def draw_load(ax: Axes, steps: pd.Series, load: np.ndarray) -> None:
    """Heat map of the load [steps, experts] of a router: white is even, red more, blue less."""
    experts = load.shape[1]
    first = max(0, 2 * steps.iloc[0] - steps.iloc[1]) if len(steps) > 1 else 0
    edges = np.linspace(first, max(steps.iloc[-1], first + 1), len(steps) + 1)
    # A record is about the steps before it.
    columns = np.searchsorted(steps, (edges[:-1] + edges[1:]) / 2).clip(max=len(steps) - 1)
    image = ax.imshow(
        np.log2(np.maximum(load[columns] * experts, 2.0**-9)).T,
        extent=(edges[0], edges[-1], -0.5, experts - 0.5),
        origin="lower",
        aspect="auto",
        interpolation="none",
        cmap=matplotlib.colormaps["RdBu_r"].resampled(25),
        vmin=-2,
        vmax=2,
    )
    ax.grid(False)
    ax.set(xlabel="step", ylabel="expert")
    ticks(ax.xaxis, 5)
    ax.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=18)
    bar.set_ticks([-2, -1, 0, 1, 2], labels=["≤ ¼", "½", "1", "2", "≥ 4"])
    bar.set_label("load / even load")
    bar.outline.set_edgecolor(GREY)
