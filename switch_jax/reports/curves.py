"""Draws the runs' curves over steps or time, and the speed-up over a dense run."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from switch_jax.drawing.figures import GREY, Chart, Line, draw_lines, short
from switch_jax.reports.comparison import Comparison
from switch_jax.reports.findings import Findings
from switch_jax.reports.records import QUALITY
from switch_jax.reports.runs import GENERATED, Run, Series

_MAX_MARKS = 2  # more speed-ups than these have charts of their own and no marks in the curves
_QUALITY_LABEL = "neg. log perplexity [nats]"


class XAxis(NamedTuple):
    """The horizontal axis of a chart: steps, or time in one unit for all runs."""

    name: str  # "steps" or "time"
    label: str
    unit: str = ""
    second: float = 0.0  # a second in that unit; 0 for steps

    def positions(self, curve: Series) -> np.ndarray:
        """Returns where the values of the curve lie on the axis [T]."""
        return curve.seconds * self.second if self.second else curve.step


STEPS = XAxis("steps", "step")


def both_axes(findings: Findings) -> tuple[XAxis, XAxis]:
    """Returns the axes of steps, and of training time in one unit for all runs."""
    unit, size = findings.time_unit
    return STEPS, XAxis("time", f"training time [{unit}]", unit, 1 / size)


def curve_chart(
    findings: Findings,
    series: Callable[[Run], Series | None],
    name: str,
    title: str,
    caption: str,
    label: str,
    axis: XAxis = STEPS,
    *,
    low: float | None = None,
    start: float | None = None,
    level: float | None = None,
    mark: Callable[[Axes], None] = lambda ax: None,
) -> Chart | None:
    """Makes a chart with a line for each run that has values; None if no run has.

    `series` gives the numbers of a run, and `name` is the one that is drawn, an accuracy in per
    cent. `low` is where the vertical axis begins (None: below the lowest value), `start` the part
    of the steps whose values may lie below the chart, see `_limits`, and `level` the height of a
    horizontal line; `mark` draws what is marked besides. The caption goes on with what follows from
    the lines.
    """
    lines, curves = [], []
    for run in findings.runs:
        curve = series(run)
        if curve is None or not np.isfinite(curve.get(name)).any():
            continue
        scale = 100 if name == "accuracy" else 1
        values, spread = scale * curve.get(name), scale * curve.spread.get(name, np.zeros(0))
        looks = findings.colours[run.name], run.dense, curve is not run.train
        band = spread if spread.any() else None
        lines.append(Line(axis.positions(curve), values, short(run.name), *looks, band))
        edges = values if band is None else [values - band, values + band]
        curves += [(curve.step, edge) for edge in np.atleast_2d(edges)]
    if not lines:
        return None
    high = None
    if start is not None:
        low, high = _limits(curves, start, level)
        if low is not None and min(np.nanmin(values) for _, values in curves) < low:
            caption += " The steep first part lies below the chart."
    if any(line.dashed for line in lines):
        caption += " Dashed = dense."
    if any(line.spread is not None for line in lines):
        caption += " Band = standard deviation of the seeds."

    def draw(ax: Axes) -> None:
        draw_lines(ax, lines, x_label=axis.label, y_label=label, y_limits=(low, high))
        if level is not None:
            ax.axhline(level, color=GREY, linewidth=1)
            ax.set_xlim(left=0)
        mark(ax)

    return Chart(title, caption, draw)


def held_out(findings: Findings, axis: XAxis) -> Chart | None:
    """Charts how well each run predicts held-out text, and marks the speed-ups."""
    known = [c for c in findings.comparisons if math.isfinite(c.speedup[axis.name])]
    if axis is not STEPS:
        known = [c for c in known if not c.time_is_chance]
    marked = known if len(findings.comparisons) <= _MAX_MARKS else []
    title = f"Held-out quality against {axis.name}"
    text = "How well each run predicts text it never trained on; higher is better."
    if marked:
        baseline = marked[0].baseline.name
        text += f" Dotted = {baseline}'s last value; ring = another run reaches it, with its "
        text += "speed-up below."

    def mark(ax: Axes) -> None:
        for i, comparison in enumerate(marked):
            _mark(ax, comparison, axis, row=i)

    what = (findings.held_out, QUALITY, title, text, _QUALITY_LABEL, axis)
    return curve_chart(findings, *what, start=1 / 4, mark=mark)


def scores(findings: Findings) -> list[Chart | None]:
    """Charts token accuracy, and each metric of the text generated at the evaluations."""
    title, text = "Held-out token accuracy", "How often the most probable token is the right one."
    what = ("accuracy", title, text, "token accuracy [%]")
    charts = [curve_chart(findings, findings.held_out, *what, start=1 / 4)]
    text = "The task's own metric, of the text that the run generated at its evaluations."
    for name in findings.generated:
        metric = name.removeprefix(GENERATED)
        what = (name, f"Generated text: {metric}", text, metric)
        charts.append(curve_chart(findings, findings.held_out, *what))
    return charts


def training(findings: Findings, axis: XAxis) -> Chart | None:
    """Charts how well each run predicts its training batches."""
    title = f"Training quality against {axis.name}"
    text = "The same measure on the training batches. Well above the held-out curve would mean "
    text += "that a run learns its training text by heart."
    what = (QUALITY, title, text, _QUALITY_LABEL, axis)
    return curve_chart(findings, lambda run: run.train, *what, start=1 / 4)


def optimisation(findings: Findings) -> list[Chart | None]:
    """Charts loss, learning rate, throughput and gradient norm of the training batches."""
    loss = "All that the optimiser minimises, the routers' own losses included; lower is better."
    rate = "The size of the optimiser's steps, as the schedule sets it."
    speed = "Tokens trained on per second of training; higher is faster."
    norm = "The length of the gradient. Falling is healthy; growing spikes announce an instability."
    charts = [
        ("loss", "Training loss", loss, "loss [nats]"),
        ("learning_rate", "Learning rate", rate, "learning rate"),
        ("tokens_per_second", "Throughput", speed, "tokens / s"),
        ("gradient_norm", "Gradient norm", norm, "gradient norm"),
    ]
    return [
        curve_chart(findings, lambda run: run.train, *what, low=None if what[0] == "loss" else 0)
        for what in charts
    ]


def speedup(findings: Findings, axis: XAxis) -> Chart | None:
    """Charts how much sooner runs have their values than the baseline; None if unknown."""
    if not findings.comparisons:
        return None
    what, baseline = axis.name, findings.comparisons[0].baseline.name
    speedups = {c.run.name: c.speedups for c in findings.comparisons}
    title, label = f"Speed-up in {what} over training", f"speed-up in {what}"
    text = (
        f"At each evaluation after a tenth of a run's steps: {what} that {baseline} takes to the "
        f"same held-out value / {what} of the run. It is known for values between {baseline}'s "
        "first and its best."
    )
    shown = (lambda run: speedups.get(run.name), what, title, text, label, axis)
    return curve_chart(findings, *shown, start=0, level=1.0)


def _mark(ax: Axes, comparison: Comparison, axis: XAxis, row: int) -> None:
    """Marks the baseline's final value, and the point where the run reaches it."""
    target, reached = comparison.target, comparison.reached
    x, where = reached.step, f"at step {reached.step:,.0f}"
    if axis is not STEPS:
        x = reached.seconds * axis.second
        where = f"at {x:.3g} {axis.unit}"
    bound = "≥ " if reached.at_first else ""
    ax.axhline(target, color=GREY, linewidth=0.8, linestyle=":")
    ax.plot([x, x], [ax.get_ylim()[0], target], color=GREY, linewidth=0.8, linestyle=":")
    ax.plot([x], [target], "o", color="none", markeredgecolor="#222222", markersize=7)
    left, right = ax.get_xlim()
    before = x > left + 0.7 * (right - left)
    # The curves rise to the right, so the foot of the chart is free there.
    ax.annotate(
        f"{bound}{comparison.speedup[axis.name]:.2f}× speed-up\n{where}",
        (x, 0.03 + 0.16 * row),
        xycoords=ax.get_xaxis_transform(),
        xytext=(-4 if before else 4, 0),
        textcoords="offset points",
        ha="right" if before else "left",
        va="bottom",
        fontsize=8.5,
    )


def _limits(
    curves: Sequence[tuple[np.ndarray, np.ndarray]], start: float, level: float | None
) -> tuple[float | None, float | None]:
    """Chooses limits of y around curves, steps [T] and values [T], without their low beginning.

    The beginning is the part `start` of the longest curve's steps, and at most half of a curve. The
    last value of each curve, and `level`, lie within the limits.
    """
    longest = max(float(step[-1]) for step, _ in curves)
    later = []
    for step, values in curves:
        first = min(start * longest, step[-1] / 2)
        last = values[np.isfinite(values)][-1]
        later += [last, np.interp(first, step, values), *values[step >= first]]
    low, high = np.nanmin(later), max(np.nanmax(values) for _, values in curves)
    if level is not None:
        low, high = min(low, level), max(high, level)
    if not low < high:
        return None, None
    return low - 0.05 * (high - low), high + 0.08 * (high - low)
