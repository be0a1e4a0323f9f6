"""Held-out loss against parameters, in the layout of Figure 1 (left) of Fedus et al. 2022."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from switch_jax.reports.drawing import GREY, LABEL_SIZE, Chart, Line, plain_ticks, short
from switch_jax.reports.findings import Findings
from switch_jax.reports.series import MeanCurve, band_caption
from switch_jax.units import count


def loss_against_parameters(findings: Findings) -> Chart | None:
    """A point for each configuration, at the last step that all have; None for fewer than two."""
    known = [
        (c, curve)
        for c in findings.configurations
        if c.parameters and (curve := findings.mean_quality(c))
    ]
    step = _last_common_step([curve for _, curve in known])
    if len(known) < 2 or step is None:
        return None
    points = []
    for c, curve in known:
        i = int(np.flatnonzero(curve.step == step)[0])
        low, mean, high = (-values[i : i + 1] for values in (curve.high, curve.mean, curve.low))
        label, x = short(c.label).removesuffix(" experts"), np.array([c.parameters], float)
        points.append(Line(x, mean, label, c.colour, dashed=c.dense, band=(low, high)))
    flops = [c.runs[0].facts.get("flops_per_token") for c, _ in known]
    smallest, largest = (count(f(p.x[0] for p in points)) for f in (min, max))
    caption = (
        f"Held-out loss at step {step:,}, the last that all have, against the number of "
        f"parameters, {smallest} to {largest}; lower is better. "
        "Numbers are experts in each Switch layer; a line joins models of equal FLOPs per token. "
        "The layout is that of Figure 1 (left) of Fedus et al. 2022. "
        f"{band_caption((len(c.runs) for c, _ in known), line='Point', band='bar')}"
    )

    def draw(ax: Axes) -> None:
        ax.set_xscale("log")
        for equal in dict.fromkeys(flops):
            of_group = [p for p, f in zip(points, flops, strict=True) if f == equal]
            xy = sorted((p.x[0], p.y[0]) for p in of_group)
            ax.plot(*zip(*xy, strict=True), color=GREY, linewidth=1)
        for p in points:
            ax.vlines(p.x, *(p.band or ()), color=p.colour, linewidth=3, alpha=0.4)
            ax.plot(p.x, p.y, "o", color=p.colour, markersize=6, markerfacecolor=p.inside)
            ax.annotate(
                p.label,
                (p.x[0], p.y[0]),
                xytext=(5, 5),
                textcoords="offset points",
                color=p.colour,
                fontsize=LABEL_SIZE,
            )
        ax.set(xlabel="parameters", ylabel=f"loss at step {step:,} [nats]")
        ax.margins(x=0.12, y=0.12)
        plain_ticks(ax.yaxis, most=6)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: count(v)))
        ax.xaxis.set_minor_locator(NullLocator())

    return Chart("Held-out loss against parameters", caption.strip(), draw)


def _last_common_step(curves: Sequence[MeanCurve]) -> int | None:
    """The last step after 0 that all curves have; None if there is none."""
    steps = set.intersection(*(set(c.step[c.step > 0].tolist()) for c in curves)) if curves else ()
    return max(steps, default=None)
