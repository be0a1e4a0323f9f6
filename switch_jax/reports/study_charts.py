"""Charts that compare configurations: loss against parameters, and speed-ups in the course of time.

The layout of the first is that of Figure 1, left, of Fedus et al. 2022.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from switch_jax.reports.comparison import ComparisonOverSeeds, compare_all
from switch_jax.reports.configurations import Configuration, MeanCurve, band_caption, mean_curve
from switch_jax.reports.curves import STEPS, XAxis, time_axis
from switch_jax.reports.figures import (
    GREY,
    Chart,
    Line,
    draw_labelled_points,
    draw_lines,
    short,
)
from switch_jax.reports.held_out import QUALITY, held_out
from switch_jax.reports.power_law import checked_fit
from switch_jax.reports.runs import Series
from switch_jax.units import count

_FIRST_PART = 1 / 10  # of the longest run; the speed-up before its end does not set the range of y
_FARTHEST = 3  # times the steps of a dense curve, to which it is continued


def loss_against_parameters(found: Sequence[Configuration], task: str | None) -> Chart | None:
    """A point for each configuration, at the last step that all have; None for fewer than two."""
    known = []
    for configuration in found:
        curve = _held_out_curve(configuration, task)
        if curve is not None and configuration.parameters:
            known.append((configuration, configuration.parameters, curve))
    step = last_common_step([curve for *_, curve in known])
    if len(known) < 2 or step is None:
        return None
    points, flops = [], []
    for configuration, parameters, curve in known:
        i = int(np.flatnonzero(curve.step == step)[0])
        low, mean, high = (-values[i : i + 1] for values in (curve.high, curve.mean, curve.low))
        label = short(configuration.label).removesuffix(" experts")
        point = np.array([parameters], float)
        colour, dashed = configuration.colour, configuration.dense
        points.append(Line(point, mean, label, colour, dashed=dashed, band=(low, high)))
        flops.append(configuration.runs[0].facts.get("flops_per_token"))
    shown, sizes = [c for c, *_ in known], [parameters for _, parameters, _ in known]
    caption = (
        f"Held-out loss at step {step:,}, the last that all have, against the number of "
        f"parameters, {count(min(sizes))} to {count(max(sizes))}; lower is better. "
        "Numbers are experts in each Switch layer; a line joins models of equal FLOPs per token. "
        "The layout is that of Figure 1 (left) of Fedus et al. 2022."
    )
    if any(len(c.runs) > 1 for c in shown):
        caption += f" {band_caption(shown, line='Point', band='bar')}"

    def draw(ax: Axes) -> None:
        draw_labelled_points(
            ax, points, flops, x_label="parameters", y_label=f"loss at step {step:,} [nats]"
        )

    return Chart("Held-out loss against parameters", caption, draw)


def last_common_step(curves: Sequence[MeanCurve]) -> int | None:
    """The last step after 0 that all curves have; None if there is none."""
    steps = set.intersection(*(set(c.step[c.step > 0].tolist()) for c in curves)) if curves else ()
    return max(steps, default=None)


def speedup_charts(found: Sequence[Configuration], task: str | None) -> list[Chart]:
    """The speed-up over each dense configuration, in steps and in time; empty without any."""
    axes = (STEPS, time_axis(found))
    charts = [speedup(found, task, axis, dense) for dense in found if dense.dense for axis in axes]
    return [chart for chart in charts if chart is not None]


def speedup(
    found: Sequence[Configuration], task: str | None, axis: XAxis, dense: Configuration
) -> Chart | None:
    """How much sooner each sparse configuration has its value than a dense one, over training."""
    comparisons = compare_all([dense, *(c for c in found if c.sparse)], task)
    in_time = bool(axis.second)
    curves = [(c.sparse, _mean_speedup(c, in_time)) for c in comparisons]
    measured = [(sparse, curve) for sparse, curve in curves if curve is not None]
    if not measured:
        return None
    fitted, note = _fitted_speedups(dense, measured, task, in_time)
    lines = [
        Line(axis.of(c), c.mean, short(s.label), s.colour, markers=True, band=(c.low, c.high))
        for s, c in measured
    ]
    lines += [Line(axis.of(c), c.mean, "fit", s.colour, dashed=True) for s, c in fitted]
    what = "time" if in_time else "steps"
    caption = (
        f"At each evaluation of a sparse run: {what} that {dense.label} takes to the same held-out "
        f"value / {what} of the sparse run. Above 1 the sparse run is ahead. A curve ends where "
        f"{dense.label} never gets to its value.{note}"
    )
    if any(len(c.pairs) > 1 for c in comparisons):
        caption += f" {band_caption([c.sparse for c in comparisons])}"
    limits = _limits([curve for _, curve in (*measured, *fitted)])

    def draw(ax: Axes) -> None:
        draw_lines(ax, lines, x_label=axis.label, y_label=f"speed-up in {what}", y_limits=limits)
        ax.axhline(1.0, color=GREY, linewidth=1)
        ax.set_xlim(0, 1.02 * max(float(line.x[np.isfinite(line.y)].max()) for line in lines))

    over = f"over {short(dense.label)}" if sum(c.dense for c in found) > 1 else "over training"
    title = f"Speed-up in {what} {over}"
    return Chart(title, caption, draw)


def _mean_speedup(comparison: ComparisonOverSeeds, in_time: bool) -> MeanCurve | None:
    curves = [pair.curve for pair in comparison.pairs]
    series = [
        Series(c.step, c.seconds, {"ratio": c.in_time if in_time else c.in_steps}) for c in curves
    ]
    return mean_curve(series, "ratio")


def _fitted_speedups(
    dense: Configuration,
    measured: Sequence[tuple[Configuration, MeanCurve]],
    task: str | None,
    in_time: bool,
) -> tuple[list[tuple[Configuration, MeanCurve]], str]:
    """The speed-ups where measured ones end, over a power law through the dense curve; a note."""
    reference = _held_out_curve(dense, task)
    if reference is None or (found := checked_fit(reference.step, -reference.mean)) is None:
        return [], ""
    law, miss = found
    last = int(reference.step[-1])
    seconds_per_step = float(reference.seconds[-1]) / last
    fitted = []
    for sparse, known in measured:
        curve = _held_out_curve(sparse, task)
        assert curve is not None  # its speed-up was measured
        dense_step = law.step(-curve.mean)
        later = curve.step > max(known.step[np.isfinite(known.mean)], default=0)
        later &= dense_step <= _FARTHEST * last
        if later.any():
            step, seconds, dense_step = (x[later] for x in (curve.step, curve.seconds, dense_step))
            ratio = dense_step * seconds_per_step / seconds if in_time else dense_step / step
            fitted.append((sparse, MeanCurve(step, seconds, ratio, ratio, ratio)))
    note = (
        f" Dashed (fit): its steps by a power law, loss = {law}, through its values from step "
        f"{law.first_step:,} on, up to {_FARTHEST} times its steps. The same law through the first "
        f"half of its steps is {abs(miss):.3f} nats too {'high' if miss > 0 else 'low'} at step "
        f"{last:,}."
    )
    return fitted, note if fitted else ""


def _held_out_curve(configuration: Configuration, task: str | None) -> MeanCurve | None:
    series = [s for run in configuration.runs if (s := held_out(run, task)) is not None]
    return mean_curve(series, QUALITY)


def _limits(curves: Sequence[MeanCurve]) -> tuple[float | None, float | None]:
    """Limits of y that the first steps, where a step more or less is a large factor, do not set."""
    start = _FIRST_PART * max(float(curve.step[-1]) for curve in curves)
    edges = [(c.step >= start, values) for c in curves for values in (c.mean, c.low, c.high)]
    later = np.concatenate([values[after] for after, values in edges])
    later = later[np.isfinite(later)]
    if not len(later):
        return None, None
    low, high = min(1.0, float(later.min())), max(1.0, float(later.max()))
    margin = 0.08 * (high - low) or 0.1
    return math.floor(20 * (low - margin)) / 20, high + margin
