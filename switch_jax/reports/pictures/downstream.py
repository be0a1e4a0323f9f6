"""Downstream scores: over steps, and against upstream quality (Figure 13 of Fedus et al. 2022)."""

from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from switch_jax.reports.configurations import Configuration
from switch_jax.reports.downstream import Measure, Scores, Setting
from switch_jax.reports.drawing import GREY, LABEL_SIZE, Chart, Line, finish, short
from switch_jax.reports.findings import Findings
from switch_jax.reports.pictures.curves import CurveChart, XAxis
from switch_jax.reports.runs import Run
from switch_jax.reports.series import band, band_caption

_STEPS = XAxis("steps", "step of the run")


def over_steps(findings: Findings) -> list[Chart | None]:
    """A chart for each metric of each setting, a line for each configuration."""
    return [
        CurveChart(
            f"{m.title}: {m.metric}",
            f"{_what(m)} at each evaluated checkpoint, from what the model writes or prefers by "
            "itself.",
            m.metric + m.unit,
            m.metric,
            partial(_scores, m.setting),
            markers=True,
        ).of(findings, _STEPS)
        for m in findings.measures
    ]


def against_upstream(findings: Findings) -> list[Chart | None]:
    """A chart for each setting that has a run of known origin."""
    return [_against_upstream(findings, m) for m in findings.measures if m.first]


def _against_upstream(findings: Findings, m: Measure) -> Chart | None:
    """Upstream quality and best score, means over seeds; a line joins the dense, one the sparse."""
    task = findings.upstream_task or ""
    known: list[tuple[Configuration, np.ndarray]] = []  # [S, 2], both of each seed
    for c in findings.configurations:
        of_seeds = [
            (run.origin.quality[task], run.scores[m.setting].best_score)
            for run in c.runs
            if m.setting in run.scores and run.origin and task in run.origin.quality
        ]
        finite = [values for values in of_seeds if np.isfinite(values[1])]
        if finite:
            known.append((c, np.array(finite)))
    if not known:
        return None
    points = [_point(c, values) for c, values in known]

    def draw(ax: Axes) -> None:
        for dashed, group in ((True, "dense"), (False, "sparse")):
            xy = sorted((p.x[0], p.y[0]) for p in points if p.dashed == dashed)
            if xy:
                ax.plot(
                    *zip(*xy, strict=True),
                    color=GREY,
                    linewidth=1,
                    linestyle=(0, (4, 2)) if dashed else "-",
                    marker="o",
                    markersize=6,
                    markerfacecolor="white" if dashed else GREY,
                    label=group,
                )
        for p in points:
            # `plot` and not `vlines`: the legend keeps clear of it.
            bar: dict[str, Any] = {"linewidth": 3, "alpha": 0.4, "solid_capstyle": "butt"}
            if p.band is not None:
                ax.plot(p.x.repeat(2), np.concatenate(p.band), color=p.colour, **bar)
            if p.x_band is not None:
                ax.plot(np.concatenate(p.x_band), p.y.repeat(2), color=p.colour, **bar)
            ax.plot(p.x, p.y, "o", color=p.colour, markersize=7, markerfacecolor=p.inside)
        ax.set(xlabel="upstream neg. log perplexity [nats]", ylabel=f"best {m.metric}{m.unit}")
        ax.margins(x=0.08, y=0.1)
        finish(ax, points)
        ax.legend(frameon=False, fontsize=LABEL_SIZE)

    caption = (
        f"{_what(m)} at each run's best checkpoint, against how well the checkpoint that it "
        f"started from predicts held-out text (task: {task}); right and up are better. The layout "
        "is that of Figure 13 of Fedus et al. 2022; the tasks are the ones named here. "
        f"{band_caption((len(values) for _, values in known), line='Point', band='bar')}"
    )
    return Chart(f"{m.title} against upstream quality", caption.strip(), draw)


def _point(c: Configuration, values: np.ndarray) -> Line:
    """The mean of values [S, 2], x and y of each seed, and the bands of both."""
    (x, y), (low, high) = values.mean(0)[:, None], band(values)
    several = len(values) > 1
    return Line(
        x,
        y,
        short(c.label),
        c.colour,
        dashed=c.dense,
        band=(low[1:], high[1:]) if several else None,
        x_band=(low[:1], high[:1]) if several else None,
    )


def _scores(setting: Setting, _: Findings, run: Run) -> Scores | None:
    return run.scores.get(setting)


def _what(m: Measure) -> str:
    return f"Score on {m.setting.task} ({m.setting.split}; {m.setting.decoding})"
