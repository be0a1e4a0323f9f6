"""Charts of downstream scores: over steps, and against upstream quality."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from switch_jax.reports.configurations import Configuration, band, band_caption, runs_of
from switch_jax.reports.curves import XAxis, curve_chart, curves
from switch_jax.reports.downstream import Downstream, Setting
from switch_jax.reports.figures import Chart, Line, draw_points, short
from switch_jax.reports.runs import Run, Series

_STEPS = XAxis("steps", "step of the run")


def over_steps(found: Sequence[Configuration], downstream: Downstream) -> list[Chart]:
    """A chart for each metric of each setting, a line for each configuration.

    Args:
      found: the configurations.
      downstream: the scores of their runs, in this order.
    """
    return [
        _over_steps(found, downstream, setting, metric)
        for setting in downstream.settings
        for metric in dict.fromkeys(
            metric for run in downstream.scores if setting in run for metric in run[setting].values
        )
    ]


def against_upstream(found: Sequence[Configuration], downstream: Downstream) -> list[Chart]:
    """Figure 13 of the paper: a chart for each setting that has a run of known origin.

    Args:
      found: the configurations.
      downstream: the scores and origins of their runs, in this order.
    """
    charts = (_against_upstream(found, downstream, setting) for setting in downstream.settings)
    return [chart for chart in charts if chart is not None]


def _over_steps(
    found: Sequence[Configuration], downstream: Downstream, setting: Setting, metric: str
) -> Chart:
    scores = dict(zip(_folders(found), downstream.scores, strict=True))

    def series(run: Run) -> Series | None:
        of_run = scores[run.folder].get(setting)
        if of_run is None:
            return None
        return Series(of_run.step, np.full(len(of_run.step), np.nan), of_run.values)

    lines = curves(found, series, metric, _STEPS, markers=True)
    caption = (
        f"{_what(setting)} at each evaluated checkpoint, from what the model writes or prefers by "
        "itself."
    )
    unit = " [%]" if downstream.is_per_cent(setting, metric) else ""
    title = f"{downstream.title(setting)}: {metric}"
    return curve_chart(title, caption, found, lines, _STEPS, metric + unit)


def _against_upstream(
    found: Sequence[Configuration], downstream: Downstream, setting: Setting
) -> Chart | None:
    """Upstream quality and best score, means over seeds; a line joins the dense, one the sparse."""
    task = downstream.upstream_task
    known: dict[str, tuple[float, float]] = {}  # folder -> upstream quality and best score
    metric = ""
    for folder, scores, upstream in zip(
        _folders(found), downstream.scores, downstream.upstream, strict=True
    ):
        if setting in scores and upstream is not None and task in upstream.quality:
            metric = scores[setting].metric
            if np.isfinite(scores[setting].best_score):
                known[folder] = (upstream.quality[task], scores[setting].best_score)
    shown = [
        dataclasses.replace(c, runs=runs)
        for c in found
        if (runs := tuple(run for run in c.runs if run.folder in known))
    ]
    if not shown:
        return None
    points = [_point(c, np.array([known[run.folder] for run in c.runs])) for c in shown]
    unit = " [%]" if downstream.is_per_cent(setting, metric) else ""

    def draw(ax: Axes) -> None:
        draw_points(
            ax,
            points,
            x_label="upstream neg. log perplexity [nats]",
            y_label=f"best {metric}{unit}",
            groups=("dense", "sparse"),
        )

    caption = (
        f"{_what(setting)} at each run's best checkpoint, against how well the checkpoint that it "
        f"started from predicts held-out text (task: {task}); right and up are better. The layout "
        "is that of Figure 13 of Fedus et al. 2022; the tasks are the ones named here. "
        f"{band_caption(shown, line='Point', band='bar')}"
    )
    title = f"{downstream.title(setting)} against upstream quality"
    return Chart(title, caption.strip(), draw)


def _point(configuration: Configuration, values: np.ndarray) -> Line:
    """The mean of values [S, 2], x and y of each seed, and the bands of both."""
    x, y = values.mean(0)[:, None]
    label, colour = short(configuration.label), configuration.colour
    point = Line(x, y, label, colour, dashed=configuration.dense)
    if len(values) == 1:
        return point
    low, high = band(values)
    return dataclasses.replace(point, x_band=(low[:1], high[:1]), band=(low[1:], high[1:]))


def _folders(found: Sequence[Configuration]) -> list[str]:
    return [run.folder for run in runs_of(found)]


def _what(setting: Setting) -> str:
    return f"Score on {setting.task} ({setting.split}; {setting.decoding})"
