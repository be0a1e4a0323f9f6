"""Draws what all charts share: lines with labels at their ends, ticks, files; without pyplot."""

import base64
import dataclasses
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, ScalarFormatter

# Okabe and Ito's colours, which are distinct for people with any kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
GREY = "#666666"

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.6,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "axes.labelcolor": "#222222",
    "text.parse_math": False,  # names of runs and tasks may hold a $
    "svg.fonttype": "none",  # text stays text: small files, and the reader's own fonts
    "svg.hashsalt": "switch_jax",  # the same runs give the same bytes
}
_POINTS = 200  # a line of more points is drawn as the means of neighbours
_MARKERS = 30  # more hide the line
LABEL_SIZE = 8.5
_MAX_LABELS = 12  # more do not fit beside a chart


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart: its title, one or two sentences on how to read it, and how it is drawn."""

    title: str
    caption: str
    draw: Callable[[Axes], None]


@dataclasses.dataclass(frozen=True)
class Line:
    """One curve: x and y [T], the text at its end, and its look.

    `spread` [T] is how far a band around it goes to either side; None: there is no band.
    """

    x: np.ndarray
    y: np.ndarray
    label: str
    colour: str | tuple[float, float, float]
    dashed: bool = False
    markers: bool = False
    spread: np.ndarray | None = None


def draw_lines(
    ax: Axes,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    y_limits: tuple[float | None, float | None] = (None, None),
) -> None:
    """Draws curves, each with its label in its colour beside the right edge, at its last height."""
    few = max((len(line.x) for line in lines), default=0) <= _MARKERS
    for line in lines:
        x, y = means_of_neighbours(line.x, _POINTS), means_of_neighbours(line.y, _POINTS)
        style = (0, (4, 2)) if line.dashed else "-"
        marker = "o" if (line.markers and few) or len(x) == 1 else None
        ax.plot(x, y, color=line.colour, linestyle=style, marker=marker, markersize=3)
        if line.spread is not None:
            half = means_of_neighbours(line.spread, _POINTS)
            ax.fill_between(x, y - half, y + half, color=line.colour, alpha=0.2, linewidth=0)
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.margins(x=0.02)
    ax.set_ylim(*y_limits)
    plain_ticks(ax.xaxis, most=5)
    plain_ticks(ax.yaxis, most=6)
    label_ends(ax, lines)


def plain_ticks(axis: Axis, most: int) -> None:
    """Sets round ticks without exponents or offsets, with commas from 1,000 on."""
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
    if max(map(abs, axis.get_view_interval())) >= 1000:
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.10g}"))
    else:
        formatter = ScalarFormatter(useOffset=False)
        formatter.set_scientific(False)
        axis.set_major_formatter(formatter)


def label_ends(ax: Axes, lines: Sequence[Line]) -> None:
    """Writes each line's label at its end, and moves labels apart that would touch."""
    ends = [line for line in lines if np.isfinite(line.y).any()]
    ends = ends[:: math.ceil(len(ends) / _MAX_LABELS)] if ends else []
    low, high = ax.get_ylim()
    last = [float(line.y[np.isfinite(line.y)][-1]) for line in ends]
    heights = np.clip([(y - low) / (high - low) for y in last], 0, 1)
    points = ax.get_window_extent().height * 72 / ax.figure.dpi
    spaced = spread(heights, gap=1.2 * LABEL_SIZE / points)
    for line, height in zip(ends, spaced, strict=True):
        ax.annotate(
            line.label,
            (1.0, height),
            xytext=(4, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            color=line.colour,
            fontsize=LABEL_SIZE,
            va="center",
            annotation_clip=False,
        )


def spread(heights: Sequence[float] | np.ndarray, gap: float) -> np.ndarray:
    """Moves heights [N] in [0, 1] at least `gap` apart, as little as needed, in the same order."""
    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(order))
    # Upwards from the lowest; then those that the top pushes back, downwards.
    placed = np.maximum.accumulate(np.array(heights, float)[order] - steps)
    placed = np.minimum(placed, 1.0 - steps[-1:])
    result = np.empty_like(placed)
    result[order] = placed + steps
    return result


def means_of_neighbours(values: np.ndarray, most: int) -> np.ndarray:
    """Shortens [T, ...] to at most `most` rows, means of equally many neighbours."""
    size = math.ceil(len(values) / most)
    if size <= 1:
        return values
    starts = np.arange(0, len(values), size)
    counts = np.diff(np.append(starts, len(values)))
    sums = np.add.reduceat(values, starts, axis=0)
    return sums / counts.reshape(-1, *[1] * (values.ndim - 1))


def short(name: str) -> str:
    """Shortens a name to 16 characters."""
    return name if len(name) <= 16 else f"{name[:7]}…{name[-8:]}"


def svg_data_url(chart: Chart) -> str:
    """Renders a chart as a data: URL, readable at a phone's width."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 2.9), layout="constrained")
        chart.draw(figure.add_subplot())
        file = io.BytesIO()
        figure.savefig(file, format="svg", dpi=200, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
