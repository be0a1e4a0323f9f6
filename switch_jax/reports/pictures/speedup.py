"""Speed-up over training: how much sooner sparse models have their values than a dense one."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from switch_jax.reports.configurations import Configuration
from switch_jax.reports.drawing import GREY, Chart, Line, draw_lines, short
from switch_jax.reports.findings import Findings
from switch_jax.reports.pictures.curves import XAxis, axes
from switch_jax.reports.power_law import checked_fit
from switch_jax.reports.series import MeanCurve, band_caption, mean_curve

_FIRST_PART = 1 / 10  # of the longest run; the speed-up before its end does not set the range of y
_FARTHEST = 3  # times the steps of a dense curve, to which it is continued
_Curves = list[tuple[Configuration, MeanCurve]]


def speedup_charts(findings: Findings) -> list[Chart | None]:
    """The speed-up over each dense configuration, in steps and in time."""
    dense = [c for c in findings.configurations if c.dense]
    return [speedup(findings, x, c) for c in dense for x in axes(findings.configurations)]


def speedup(findings: Findings, axis: XAxis, dense: Configuration) -> Chart | None:
    """The speed-up of each sparse configuration over a dense one; None where there are no pairs."""
    what = axis.name
    comparisons = [c for c in findings.comparisons if c.dense is dense]
    curves = [(c.sparse, mean_curve([p.speedups for p in c.pairs], what)) for c in comparisons]
    measured = [(sparse, curve) for sparse, curve in curves if curve is not None]
    if not measured:
        return None
    fitted, note = _fitted_speedups(findings, dense, measured, what)
    lines = [
        Line(axis.of(c), c.mean, short(s.label), s.colour, markers=True, band=(c.low, c.high))
        for s, c in measured
    ]
    lines += [Line(axis.of(c), c.mean, "fit", s.colour, dashed=True) for s, c in fitted]
    caption = (
        f"At each evaluation of a sparse run: {what} that {dense.label} takes to the same held-out "
        f"value / {what} of the sparse run. Above 1 the sparse run is ahead. A curve ends where "
        f"{dense.label} never gets to its value.{note}"
    )
    if any(len(c.pairs) > 1 for c in comparisons):
        caption += f" {band_caption(len(c.sparse.runs) for c in comparisons)}"
    limits = _limits([curve for _, curve in (*measured, *fitted)])

    def draw(ax: Axes) -> None:
        draw_lines(ax, lines, x_label=axis.label, y_label=f"speed-up in {what}", y_limits=limits)
        ax.axhline(1.0, color=GREY, linewidth=1)
        ax.set_xlim(0, 1.02 * max(float(line.x[np.isfinite(line.y)].max()) for line in lines))

    several = sum(c.dense for c in findings.configurations) > 1
    over = f"over {short(dense.label)}" if several else "over training"
    return Chart(f"Speed-up in {what} {over}", caption, draw)


def _fitted_speedups(
    findings: Findings, dense: Configuration, measured: _Curves, what: str
) -> tuple[_Curves, str]:
    """The speed-ups where measured ones end, over a power law through the dense curve; a note."""
    reference = findings.mean_quality(dense)
    if reference is None or (found := checked_fit(reference.step, -reference.mean)) is None:
        return [], ""
    law, miss = found
    last = int(reference.step[-1])
    seconds_per_step = float(reference.seconds[-1]) / last
    fitted = []
    for sparse, known in measured:
        curve = findings.mean_quality(sparse)
        assert curve is not None  # its speed-up was measured
        dense_step = law.step(-curve.mean)
        later = curve.step > max(known.step[np.isfinite(known.mean)], default=0)
        later &= dense_step <= _FARTHEST * last
        if later.any():
            step, seconds, dense_step = (x[later] for x in (curve.step, curve.seconds, dense_step))
            in_time = dense_step * seconds_per_step / seconds
            ratio = in_time if what == "time" else dense_step / step
            fitted.append((sparse, MeanCurve(step, seconds, ratio, ratio, ratio)))
    note = (
        f" Dashed (fit): its steps by a power law, loss = {law}, through its values from step "
        f"{law.first_step:,} on, up to {_FARTHEST} times its steps. The same law through the first "
        f"half of its steps is {abs(miss):.3f} nats too {'high' if miss > 0 else 'low'} at step "
        f"{last:,}."
    )
    return fitted, note if fitted else ""


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
