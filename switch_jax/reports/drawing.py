"""What all pictures share: lines with direct labels, ticks, and files. No pyplot state."""

import base64
import dataclasses
import io
import math
import textwrap
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

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
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
    wide: bool = False  # takes a row of the page


@dataclasses.dataclass(frozen=True)
class Line:
    """One curve: x and y [T], the text at its end, its look, and what lies around it.

    `band` is two arrays [T], NaN where there is none; `x_band` likewise, of x.
    """

    x: np.ndarray
    y: np.ndarray
    label: str
    colour: str | tuple[float, float, float]
    dashed: bool = False
    markers: bool = False
    band: tuple[np.ndarray, np.ndarray] | None = None
    x_band: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def inside(self) -> str | tuple[float, float, float]:
        """The colour of its points, which are hollow where the line is dashed."""
        return "white" if self.dashed else self.colour


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
        if line.band is not None and np.isfinite(line.band[0]).any():
            low, high = (means_of_neighbours(edge, _POINTS) for edge in line.band)
            ax.fill_between(x, low, high, color=line.colour, alpha=0.2, linewidth=0)
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.margins(x=0.02)
    ends = {float(end) for line in lines if len(line.x) for end in (line.x[0], line.x[-1])}
    if len(ends) == 1 and (only := ends.pop()) > 0:
        ax.set_xlim(0, 2 * only)  # by itself a single point would make ticks that are no steps
    ax.set_ylim(*y_limits)
    finish(ax, lines)


def finish(ax: Axes, lines: Sequence[Line]) -> None:
    """Puts ticks on the axes, and the labels beside the lines."""
    inches = ax.get_window_extent().width / ax.figure.dpi
    plain_ticks(ax.xaxis, most=5 if inches > 3 else 4)
    plain_ticks(ax.yaxis, most=6)
    label_ends(ax, lines)


def plain_ticks(axis: Axis, most: int) -> None:
    """Round numbers without exponents or offsets; commas from 1,000 on."""
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
    if max(map(abs, axis.get_view_interval())) >= 1000:
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.10g}"))
    else:
        formatter = ScalarFormatter(useOffset=False)
        formatter.set_scientific(False)
        axis.set_major_formatter(formatter)


def label_ends(ax: Axes, lines: Sequence[Line]) -> None:
    """Writes the labels, pushed apart where they would touch."""
    ends = [line for line in lines if np.isfinite(line.y).any()]
    ends = ends[:: math.ceil(len(ends) / _MAX_LABELS)] if ends else []
    low, high = ax.get_ylim()
    last = [float(line.y[np.isfinite(line.y)][-1]) for line in ends]
    heights = np.clip([(y - low) / (high - low) for y in last], 0, 1)
    points = ax.get_window_extent().height * 72 / ax.figure.dpi
    places = spread(heights, gap=1.2 * LABEL_SIZE / points)
    for line, place in zip(ends, places, strict=True):
        ax.annotate(
            line.label,
            (1.0, place),
            xytext=(4, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            color=line.colour,
            fontsize=LABEL_SIZE,
            va="center",
            annotation_clip=False,
        )


def spread(heights: Sequence[float] | np.ndarray, gap: float) -> np.ndarray:
    """Moves heights in [0, 1] at least `gap` apart, as little as needed and in the same order."""
    order = np.argsort(heights, kind="stable")
    placed = np.array(heights, float)[order]
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    if len(placed):
        placed[-1] = min(placed[-1], 1.0)
    for i in range(len(placed) - 2, -1, -1):
        placed[i] = min(placed[i], placed[i + 1] - gap)
    result = np.empty_like(placed)
    result[order] = placed
    return result


def means_of_neighbours(values: np.ndarray, most: int) -> np.ndarray:
    """[T, ...] to at most `most` rows: means of equally many neighbours (fewer in the last)."""
    size = math.ceil(len(values) / most)
    if size <= 1:
        return values
    starts = np.arange(0, len(values), size)
    counts = np.diff(np.append(starts, len(values)))
    sums = np.add.reduceat(values, starts, axis=0)
    return sums / counts.reshape(-1, *[1] * (values.ndim - 1))


def short(name: str) -> str:
    """A name that fits beside a chart."""
    return name if len(name) <= 16 else f"{name[:7]}…{name[-8:]}"


def svg_data_url(chart: Chart) -> str:
    """One chart as a data: URL; all but wide ones are readable at a phone's width."""
    with matplotlib.rc_context(_STYLE):
        size = (9.6, 3.4) if chart.wide else (4.6, 2.9)
        figure = Figure(figsize=size, layout="constrained")
        chart.draw(figure.add_subplot())
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


def picture(
    charts: Sequence[Chart], title: str, findings: Sequence[str], *, width: float = 12.0
) -> bytes:
    """A PNG, 1800 pixels wide: title, findings, wide charts, and the others three in a row.

    Four charts are two in a row; `charts` is empty where a run has no number yet that can be drawn.
    Each finding is in lines of its own. `width`: inches that are 1800 pixels; with fewer, text is
    larger.
    """
    height = 2.9  # of a row
    title = textwrap.fill(title, round(8.7 * width))
    text = "\n".join(textwrap.fill(finding, round(12.5 * width)) for finding in findings)
    first = 0.16 + 0.24 * len(title.splitlines())
    head = first + 0.1 + 0.2 * len(text.splitlines())
    wide = [chart for chart in charts if chart.wide]
    others = [chart for chart in charts if not chart.wide]
    columns = 2 if len(others) == 4 else 3
    rows = max(1, len(wide) + math.ceil(len(others) / columns))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, head + height * rows), layout="constrained")
        halves = figure.add_gridspec(2, 1, height_ratios=[head, height * rows])
        top, body = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
        top.text(0.01, 1 - 0.12 / head, title, va="top", fontsize=13, weight="bold")
        top.text(0.01, 1 - first / head, text, va="top", fontsize=10, linespacing=1.35)
        grid = body.add_gridspec(rows, columns)
        cells = [grid[row, :] for row in range(len(wide))]
        cells += [grid[len(wide) + i // columns, i % columns] for i in range(len(others))]
        # A subfigure each: one chart's long labels must not push the others about.
        for cell, chart in zip(cells, [*wide, *others], strict=True):
            ax = body.add_subfigure(cell).add_subplot()
            chart.draw(ax)
            ax.set_title(textwrap.fill(chart.title, 40), pad=10)  # above the highest label
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=1800 / width)
    return file.getvalue()
