"""Curves of a report's configurations over steps or time."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes

from switch_jax.reports.configurations import (
    Configuration,
    MeanCurve,
    band_caption,
    mean_curve,
    runs_of,
)
from switch_jax.reports.figures import Chart, Line, draw_lines, short
from switch_jax.reports.runs import Run, Series
from switch_jax.units import time_unit


@dataclasses.dataclass(frozen=True)
class XAxis:
    """The horizontal axis of a chart: steps, or time in one unit for all runs."""

    name: str
    label: str
    unit: str = ""
    second: float = 0.0  # a second in that unit; 0 for steps

    def of(self, curve: MeanCurve) -> np.ndarray:
        return curve.seconds * self.second if self.second else curve.step


_FIRST_PART = 1 / 4  # of the longest run; charts of quality leave out values below its end
STEPS = XAxis("steps", "step")


def time_axis(found: Sequence[Configuration]) -> XAxis:
    """Training time, in the unit that suits the longest run."""
    seconds = [run.seconds for run in runs_of(found)]
    unit, size = time_unit(float(np.fmax.reduce(seconds)))
    return XAxis("time", f"training time [{unit}]", unit, 1 / size)


def curves(
    found: Sequence[Configuration],
    series: Callable[[Run], Series | None],
    name: str,
    axis: XAxis,
    *,
    markers: bool = False,
    scale: float = 1.0,
) -> list[Line]:
    """A line for each configuration that has values: the mean over its seeds, with a band.

    Args:
      found: the configurations.
      series: the numbers of a run, if it has any.
      name: of the number that is drawn.
      axis: what x is.
      markers: whether each value gets a dot.
      scale: what the values are multiplied by.
    """
    lines = []
    for configuration in found:
        curve = mean_curve([s for run in configuration.runs if (s := series(run))], name)
        if curve is not None:
            lines.append(
                Line(
                    axis.of(curve),
                    scale * curve.mean,
                    short(configuration.label),
                    configuration.colour,
                    dashed=configuration.dense,
                    markers=markers,
                    band=(scale * curve.low, scale * curve.high),
                )
            )
    return lines


def curve_chart(
    title: str,
    caption: str,
    found: Sequence[Configuration],
    lines: Sequence[Line],
    axis: XAxis,
    y_label: str,
    y_limits: tuple[float | None, float | None] = (None, None),
) -> Chart:
    """A chart of `curves`, whose caption says what dashes and bands mean."""

    def draw(ax: Axes) -> None:
        draw_lines(ax, lines, x_label=axis.label, y_label=y_label, y_limits=y_limits)

    return Chart(title, f"{caption} {legend(found, lines)}", draw)


def legend(found: Sequence[Configuration], lines: Sequence[Line]) -> str:
    """What dashes and bands mean, where there are any."""
    dashed = "Dashed = dense." if any(line.dashed for line in lines) else ""
    return f"{dashed} {band_caption(found)}".strip()


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
