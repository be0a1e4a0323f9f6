"""What the pictures of the studies share: their look, and labels at the ends of lines."""

import math
import textwrap

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from switch_jax.drawing.figures import LABEL_SIZE, STYLE, plain_ticks, spread

DASHED = (0, (4, 2))
ROW = 2.9  # inches: height of a row of charts
QUALITY = "neg. log perplexity [nats]"

matplotlib.rcParams.update(
    {
        **STYLE,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.titlepad": 10,  # above the highest label
        "lines.markersize": 3,
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
    plain_ticks(ax.xaxis, 5 if ax.get_window_extent().width / ax.figure.dpi > 3 else 4)
    plain_ticks(ax.yaxis, 6)
    label_ends(ax)


def label_ends(ax: Axes) -> None:
    """The labels of lines and points, moved apart where they would touch."""
    low, high = ax.get_ylim()
    heights, lines = [], []
    for line in ax.get_lines():
        y = np.asarray(line.get_ydata(), float)
        if not line.get_label().startswith("_") and np.isfinite(y).any():
            heights.append(np.clip((y[np.isfinite(y)][-1] - low) / (high - low), 0, 1))
            lines.append(line)
    gap = 1.2 * LABEL_SIZE / (ax.get_window_extent().height * 72 / ax.figure.dpi)
    for place, line in zip(spread(heights, gap), lines, strict=True):
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
