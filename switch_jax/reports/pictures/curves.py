"""Charts of the configurations' curves, over steps or time."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from switch_jax.reports.comparison import Comparison
from switch_jax.reports.configurations import Configuration, runs_of
from switch_jax.reports.drawing import GREY, Chart, Line, draw_lines, short
from switch_jax.reports.findings import Findings
from switch_jax.reports.records import CONTENT_QUALITY, QUALITY
from switch_jax.reports.runs import Run
from switch_jax.reports.series import MeanCurve, Series, band_caption, mean_curve
from switch_jax.units import time_unit

_FIRST_PART = 1 / 4  # of the longest run; charts of quality leave out values below its end
_MAX_MARKS = 2  # more speed-ups than these have charts of their own and no marks in the curves
_QUALITY_LABEL = "neg. log perplexity [nats]"


@dataclasses.dataclass(frozen=True)
class XAxis:
    """The horizontal axis of a chart: steps, or time in one unit for all runs."""

    name: str
    label: str
    unit: str = ""
    second: float = 0.0  # a second in that unit; 0 for steps

    def of(self, curve: MeanCurve) -> np.ndarray:
        return curve.seconds * self.second if self.second else curve.step


STEPS = XAxis("steps", "step")


def axes(found: Sequence[Configuration]) -> tuple[XAxis, XAxis]:
    """Steps, and training time in the unit that suits the longest run."""
    seconds = [run.seconds for run in runs_of(found)]
    unit, size = time_unit(float(np.fmax.reduce(seconds)))
    return STEPS, XAxis("time", f"training time [{unit}]", unit, 1 / size)


@dataclasses.dataclass(frozen=True)
class CurveChart:
    """A line for each configuration that has values: the mean over its seeds, with a band."""

    title: str  # "{axis}" in it, and in the caption, is "steps" or "time"
    caption: str  # the chart's goes on with what follows from the lines
    y_label: str
    name: str  # of the number that is drawn
    series: Callable[[Findings, Run], Series | None]  # the numbers of a run, if it has any
    markers: bool = False  # a dot for each value
    scale: float = 1.0  # what the values are multiplied by
    low: float | None = None  # where y begins; None: below the lowest value
    focused: bool = False  # whether the steep start is left out
    mark: Callable[[Axes], None] = lambda ax: None  # draws what is marked besides the lines

    def of(self, findings: Findings, axis: XAxis = STEPS) -> Chart | None:
        """The chart; None where no configuration has values."""
        lines = self._lines(findings, axis)
        if not lines:
            return None
        # `replace` and not `format`: names of metrics may hold braces.
        title, caption = (text.replace("{axis}", axis.name) for text in (self.title, self.caption))
        limits: tuple[float | None, float | None] = (self.low, None)
        if self.focused:
            limits, cut = focus(self._lines(findings, STEPS))
            caption += " The steep first part lies below the chart." if cut else ""
        dashed = "Dashed = dense." if any(line.dashed for line in lines) else ""
        bands = band_caption(len(configuration.runs) for configuration in findings.configurations)

        def draw(ax: Axes) -> None:
            draw_lines(ax, lines, x_label=axis.label, y_label=self.y_label, y_limits=limits)
            self.mark(ax)

        return Chart(title, " ".join(filter(None, (caption, dashed, bands))), draw)

    def _lines(self, findings: Findings, axis: XAxis) -> list[Line]:
        series = partial(self.series, findings)
        curves = [(c, mean_curve(map(series, c.runs), self.name)) for c in findings.configurations]
        return [
            Line(
                axis.of(curve),
                self.scale * curve.mean,
                short(c.label),
                c.colour,
                dashed=c.dense,
                markers=self.markers,
                band=(self.scale * curve.low, self.scale * curve.high),
            )
            for c, curve in curves
            if curve is not None
        ]


def _train(_: Findings, run: Run) -> Series:
    return run.train


_HELD_OUT_QUALITY = CurveChart(
    "Held-out quality against {axis}",
    "How well each run predicts text it never trained on, against {axis}; "
    "higher is better, 0 would be perfect.",
    _QUALITY_LABEL,
    QUALITY,
    Findings.held_out,
    markers=True,
    focused=True,
)
CONTENT_HELD_OUT = CurveChart(
    "Held-out quality without sentinels and EOS",
    "The same on the target tokens that are part of the text: without EOS and the sentinels "
    "between spans, which are easy to predict and say little about the text.",
    _QUALITY_LABEL,
    CONTENT_QUALITY,
    Findings.held_out,
    markers=True,
    focused=True,
)
ACCURACY = CurveChart(
    "Held-out token accuracy against {axis}",
    "How often the most probable token is the right one, given the ones before it; "
    "higher is better.",
    "accuracy [%]",
    "accuracy",
    Findings.held_out,
    markers=True,
    scale=100,
)
TRAINING_QUALITY = CurveChart(
    "Training quality against {axis}",
    "The same measure on the training batches, against {axis}; higher is better. "
    "Well above the held-out curve would mean that a run learns its training text by heart.",
    _QUALITY_LABEL,
    QUALITY,
    _train,
    focused=True,
)
OPTIMISATION = (
    CurveChart(
        "Training loss",
        "All that the optimiser minimises: cross-entropy, z-loss and, in sparse runs, the "
        "routers' own losses; lower is better.",
        "loss [nats]",
        "loss",
        _train,
    ),
    CurveChart(
        "Learning rate",
        "The size of the optimiser's steps, as the schedule sets it; "
        "runs of one optimiser that are to be compared should have the same.",
        "learning rate",
        "learning_rate",
        _train,
        low=0,
    ),
    CurveChart(
        "Throughput",
        "Tokens trained on per second of wall time; higher is faster.",
        "tokens / s",
        "tokens_per_second",
        _train,
        low=0,
    ),
    CurveChart(
        "Gradient norm",
        "The length of the gradient over all parameters. "
        "Steady or falling is healthy; growing spikes announce an instability.",
        "gradient norm",
        "gradient_norm",
        _train,
        low=0,
    ),
)


def held_out(findings: Findings, axis: XAxis) -> Chart | None:
    """How well each configuration predicts held-out text, with marks of the speed-up."""
    pairs = [pair for comparison in findings.comparisons for pair in comparison.pairs]
    marked = pairs if len(pairs) <= _MAX_MARKS else []
    caption = _HELD_OUT_QUALITY.caption
    if any(pair.has_reached for pair in marked):
        caption += (
            " Thin lines mark the dense run's final value and where the sparse run reaches it."
        )

    def mark(ax: Axes) -> None:
        for i, pair in enumerate(marked):
            _mark(ax, pair, axis, row=i)

    chart = dataclasses.replace(_HELD_OUT_QUALITY, caption=caption, mark=mark)
    return chart.of(findings, axis)


def _mark(ax: Axes, pair: Comparison, axis: XAxis, row: int) -> None:
    """The level of the dense run's final value, and the point where the sparse run reaches it."""
    ax.axhline(pair.target, color=GREY, linewidth=0.8, linestyle=":")
    if not pair.has_reached:
        return
    in_time = bool(axis.second)
    x = pair.reached.seconds * axis.second if in_time else pair.reached.step
    ratio = pair.time_speedup if in_time else pair.step_speedup
    ax.plot([x, x], [ax.get_ylim()[0], pair.target], color=GREY, linewidth=0.8, linestyle=":")
    ax.plot([x], [pair.target], "o", color="none", markeredgecolor="#222222", markersize=7)
    where = f"at {x:.3g} {axis.unit}" if in_time else f"at step {x:,.0f}"
    left, right = ax.get_xlim()
    before = x > left + 0.7 * (right - left)
    # The curves rise to the right, so the foot of the chart is free there.
    ax.annotate(
        f"{ratio:.2f}× speed-up\n{where}",
        (x, 0.03 + 0.16 * row),
        xycoords=ax.get_xaxis_transform(),
        xytext=(-4 if before else 4, 0),
        textcoords="offset points",
        ha="right" if before else "left",
        va="bottom",
        fontsize=8.5,
    )


def _lowest(step: np.ndarray, values: np.ndarray, start: float) -> float:
    """The lowest value from a step on; between two steps a curve is taken as straight."""
    return float(min(np.interp(start, step, values), *values[step >= start]))


def focus(lines: Sequence[Line]) -> tuple[tuple[float | None, float | None], bool]:
    """Limits of y that leave out the steep start, and whether they leave anything out.

    The lines are over steps; the limits are also those of the same values over time.
    """
    finite = [(line, np.isfinite(line.y)) for line in lines]
    known = [(line.x[ok], line.y[ok]) for line, ok in finite]
    start = _FIRST_PART * max((step[-1] for step, _ in known), default=0)
    long_enough = [(step, values) for step, values in known if step[-1] >= start]
    low = min((_lowest(*curve, start) for curve in long_enough), default=0)
    high = max((float(values.max()) for _, values in known), default=0)
    if not low < high:
        return (None, None), False
    floor = low - 0.05 * (high - low)
    cut = any(values.min() < floor for _, values in known)
    return (floor, high + 0.08 * (high - low)), cut
