"""The drawing: line charts with direct labels, heat maps, and their files. No pyplot state."""

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
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, ScalarFormatter

from switch_jax.units import count

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
_LABEL_SIZE = 8.5
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
    _finish(ax, lines)


def draw_points(
    ax: Axes,
    points: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    groups: tuple[str, str],
) -> None:
    """Draws lines of one point each, joined within each group in order of x.

    Args:
      ax: where.
      points: with their labels beside the right edge; bands are drawn as bars.
      x_label, y_label: of the axes.
      groups: what the legend calls the dashed ones, drawn hollow, and the others.
    """
    for dashed, group in zip((True, False), groups, strict=True):
        xy = sorted((p.x[0], p.y[0]) for p in points if p.dashed == dashed)
        if xy:
            style, fill = ((0, (4, 2)), "white") if dashed else ("-", GREY)
            ax.plot(
                *zip(*xy, strict=True),
                color=GREY,
                linewidth=1,
                linestyle=style,
                marker="o",
                markersize=6,
                markerfacecolor=fill,
                label=group,
            )
    for point in points:
        inside = "white" if point.dashed else point.colour
        # `plot` and not `vlines`: the legend keeps clear of it.
        bar: dict[str, Any] = {
            "color": point.colour,
            "linewidth": 3,
            "alpha": 0.4,
            "solid_capstyle": "butt",
        }
        if point.band is not None:
            ax.plot(point.x.repeat(2), np.concatenate(point.band), **bar)
        if point.x_band is not None:
            ax.plot(np.concatenate(point.x_band), point.y.repeat(2), **bar)
        ax.plot(point.x, point.y, "o", color=point.colour, markersize=7, markerfacecolor=inside)
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.margins(x=0.08, y=0.1)
    _finish(ax, points)
    ax.legend(frameon=False, fontsize=_LABEL_SIZE)


def draw_labelled_points(
    ax: Axes, points: Sequence[Line], groups: Sequence[object], *, x_label: str, y_label: str
) -> None:
    """Draws lines of one point each over a logarithmic x, each with its label beside it.

    Args:
      ax: where.
      points: those of dashed lines are hollow; a band is drawn as a bar.
      groups: one for each point; points of the same group are joined in order of x.
      x_label, y_label: of the axes.
    """
    ax.set_xscale("log")
    for group in dict.fromkeys(groups):
        xy = sorted((p.x[0], p.y[0]) for p, g in zip(points, groups, strict=True) if g == group)
        ax.plot(*zip(*xy, strict=True), color=GREY, linewidth=1)
    for point in points:
        inside = "white" if point.dashed else point.colour
        if point.band is not None:
            ax.vlines(point.x, *point.band, color=point.colour, linewidth=3, alpha=0.4)
        ax.plot(point.x, point.y, "o", color=point.colour, markersize=6, markerfacecolor=inside)
        ax.annotate(
            point.label,
            (point.x[0], point.y[0]),
            xytext=(5, 5),
            textcoords="offset points",
            color=point.colour,
            fontsize=_LABEL_SIZE,
        )
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.margins(x=0.12, y=0.12)
    _plain_ticks(ax.yaxis, ax.get_ylim(), most=6)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: count(v)))
    ax.xaxis.set_minor_locator(NullLocator())


def draw_named(ax: Axes, points: Sequence[Line], names: Sequence[str], *, y_label: str) -> None:
    """Draws points over names, those of dashed lines hollow; x of a line counts the names."""
    for line in points:
        inside = "white" if line.dashed else line.colour
        ax.plot(line.x, line.y, "o", color=line.colour, markersize=4, markerfacecolor=inside)
    ax.set_xticks(range(len(names)), labels=names, rotation=90, fontsize=6)
    ax.set(ylabel=y_label)
    ax.margins(x=0.01)
    _plain_ticks(ax.yaxis, ax.get_ylim(), most=6)
    _label_ends(ax, points)


def _finish(ax: Axes, lines: Sequence[Line]) -> None:
    inches = ax.get_window_extent().width / ax.figure.dpi
    _plain_ticks(ax.xaxis, ax.get_xlim(), most=5 if inches > 3 else 4)
    _plain_ticks(ax.yaxis, ax.get_ylim(), most=6)
    _label_ends(ax, lines)


def _plain_ticks(axis: Axis, limits: tuple[float, float], most: int) -> None:
    """Round numbers without exponents or offsets; commas from 1,000 on."""
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
    if max(map(abs, limits)) >= 1000:
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.10g}"))
    else:
        formatter = ScalarFormatter(useOffset=False)
        formatter.set_scientific(False)
        axis.set_major_formatter(formatter)


def _label_ends(ax: Axes, lines: Sequence[Line]) -> None:
    """Writes the labels, pushed apart where they would touch."""
    ends = [line for line in lines if np.isfinite(line.y).any()]
    ends = ends[:: math.ceil(len(ends) / _MAX_LABELS)] if ends else []
    low, high = ax.get_ylim()
    last = [float(line.y[np.isfinite(line.y)][-1]) for line in ends]
    heights = np.clip([(y - low) / (high - low) for y in last], 0, 1)
    points = ax.get_window_extent().height * 72 / ax.figure.dpi
    places = spread(heights, gap=1.2 * _LABEL_SIZE / points)
    for line, place in zip(ends, places, strict=True):
        ax.annotate(
            line.label,
            (1.0, place),
            xytext=(4, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            color=line.colour,
            fontsize=_LABEL_SIZE,
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


def draw_load(ax: Axes, step: np.ndarray, load: np.ndarray, *, columns: int, rows: int) -> None:
    """Heat map of the experts' load over steps: white is even, red more, blue less.

    Args:
      ax: where.
      step: [T] int.
      load: [T, E] fractions; E times them is drawn, on a logarithmic scale from 1/4 to 4.
      columns: the most columns; more records are averaged with their neighbours.
      rows: the most rows; more experts are averaged with their neighbours.
    """
    experts = load.shape[1]
    relative = means_of_neighbours(load, columns) * experts
    group = math.ceil(experts / rows)
    relative = means_of_neighbours(relative.T, rows).T
    per_column = math.ceil(len(step) / columns)
    # A record is about the steps before it, so a column ends at the step of its last record.
    ends = np.append(step[per_column - 1 :: per_column], step[-1])[: len(relative)]
    start = max(0, int(step[0]) - (int(step[1]) - int(step[0]))) if len(step) > 1 else 0
    edges = np.linspace(start, max(step[-1], start + 1), len(relative) + 1)
    even_columns = np.searchsorted(ends, (edges[:-1] + edges[1:]) / 2)
    image = ax.imshow(
        np.log2(np.maximum(relative[even_columns.clip(max=len(ends) - 1)], 2.0**-9)).T,
        extent=(edges[0], edges[-1], -0.5, experts - 0.5),
        origin="lower",
        aspect="auto",
        interpolation="none",
        cmap=matplotlib.colormaps["RdBu_r"].resampled(25),
        vmin=-2,
        vmax=2,
    )
    ax.grid(False)
    ax.set(xlabel="step", ylabel="expert" if group == 1 else f"expert (rows of {group})")
    _plain_ticks(ax.xaxis, ax.get_xlim(), most=5)
    ax.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=18)
    bar.set_ticks([-2, -1, 0, 1, 2], labels=["≤ ¼", "½", "1", "2", "≥ 4"])
    bar.set_label("load / even load")
    bar.outline.set_edgecolor(GREY)


def means_of_neighbours(values: np.ndarray, most: int) -> np.ndarray:
    """[T, ...] to at most `most` rows: means of equally many neighbours (fewer in the last)."""
    size = math.ceil(len(values) / most)
    if size <= 1:
        return values
    starts = np.arange(0, len(values), size)
    counts = np.diff(np.append(starts, len(values)))
    sums = np.add.reduceat(values, starts, axis=0)
    return sums / counts.reshape(-1, *[1] * (values.ndim - 1))


def shades(colour: str, n: int) -> list[tuple[float, float, float]]:
    """n shades of a colour, light to dark."""
    rgb = np.array(to_rgb(colour))
    light, dark = 1 - 0.65 * (1 - rgb), 0.6 * rgb
    return [tuple(light + (dark - light) * i / max(n - 1, 1)) for i in range(n)]


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

    Four of them are two in a row.

    Args:
      charts: at least one.
      title: in the first line.
      findings: below it, each in lines of its own.
      width: inches that are 1800 pixels; with fewer, text is larger.
    """
    height = 2.9  # of a row
    title = textwrap.fill(title, round(8.7 * width))
    text = "\n".join(textwrap.fill(finding, round(12.5 * width)) for finding in findings)
    first = 0.16 + 0.24 * len(title.splitlines())
    head = first + 0.1 + 0.2 * len(text.splitlines())
    wide = [chart for chart in charts if chart.wide]
    others = [chart for chart in charts if not chart.wide]
    columns = 2 if len(others) == 4 else 3
    rows = len(wide) + math.ceil(len(others) / columns)
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
