"""Charts of the configurations' curves, over steps or time."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes

from switch_jax.reports.configurations import Configuration, runs_of
from switch_jax.reports.drawing import Chart, Line, draw_lines, short
from switch_jax.reports.runs import Run
from switch_jax.reports.series import MeanCurve, Series, band_caption, mean_curve
from switch_jax.units import time_unit

_FIRST_PART = 1 / 4  # of the longest run; charts of quality leave out values below its end


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

    title: str
    caption: str  # the chart's goes on with what follows from the lines
    y_label: str
    name: str  # of the number that is drawn
    series: Callable[[Run], Series | None]  # the numbers of a run, if it has any
    axis: XAxis = STEPS
    markers: bool = False  # a dot for each value
    scale: float = 1.0  # what the values are multiplied by
    low: float | None = None  # where y begins; None: below the lowest value
    focused: bool = False  # whether the steep start is left out
    mark: Callable[[Axes], None] = lambda ax: None  # draws what is marked besides the lines

    def of(self, found: Sequence[Configuration]) -> Chart | None:
        """The chart; None where no configuration has values."""
        lines = self._lines(found, self.axis)
        if not lines:
            return None
        caption = self.caption
        limits: tuple[float | None, float | None] = (self.low, None)
        if self.focused:
            limits, cut = focus(self._lines(found, STEPS))
            caption += " The steep first part lies below the chart." if cut else ""
        dashed = "Dashed = dense." if any(line.dashed for line in lines) else ""
        bands = band_caption(len(configuration.runs) for configuration in found)

        def draw(ax: Axes) -> None:
            draw_lines(ax, lines, x_label=self.axis.label, y_label=self.y_label, y_limits=limits)
            self.mark(ax)

        return Chart(self.title, " ".join(filter(None, (caption, dashed, bands))), draw)

    def _lines(self, found: Sequence[Configuration], axis: XAxis) -> list[Line]:
        curves = [(c, mean_curve(map(self.series, c.runs), self.name)) for c in found]
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
