"""Charts of downstream scores: over steps, and against upstream quality."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from switch_jax.reports.downstream import Downstream, Setting
from switch_jax.reports.figures import Chart, Line, draw_lines, draw_points, short
from switch_jax.reports.runs import Run


def over_steps(runs: Sequence[Run], downstream: Downstream, palette: Sequence[str]) -> list[Chart]:
    """A chart for each metric of each setting, a line for each run in its colour."""
    return [
        _over_steps(runs, downstream, palette, setting, metric)
        for setting in downstream.settings
        for metric in dict.fromkeys(
            metric for run in downstream.scores if setting in run for metric in run[setting].values
        )
    ]


def against_upstream(
    runs: Sequence[Run], downstream: Downstream, palette: Sequence[str]
) -> list[Chart]:
    """Figure 13 of the paper: a chart for each setting that has a run of known origin."""
    charts = (
        _against_upstream(runs, downstream, palette, setting) for setting in downstream.settings
    )
    return [chart for chart in charts if chart is not None]


def _over_steps(
    runs: Sequence[Run],
    downstream: Downstream,
    palette: Sequence[str],
    setting: Setting,
    metric: str,
) -> Chart:
    lines = [
        Line(s.step, s.values[metric], short(run.name), colour, dashed=run.dense, markers=True)
        for run, scores, colour in zip(runs, downstream.scores, palette, strict=True)
        if (s := scores.get(setting)) is not None and metric in s.values
    ]
    dashed = " Dashed = dense." if any(line.dashed for line in lines) else ""
    caption = (
        f"{_what(setting)} at each evaluated checkpoint, from what the model writes or prefers by "
        f"itself.{dashed}"
    )

    unit = " [%]" if downstream.is_per_cent(setting, metric) else ""

    def draw(ax: Axes) -> None:
        draw_lines(ax, lines, x_label="step of the run", y_label=metric + unit)

    return Chart(f"{downstream.title(setting)}: {metric}", caption, draw)


def _against_upstream(
    runs: Sequence[Run], downstream: Downstream, palette: Sequence[str], setting: Setting
) -> Chart | None:
    """Upstream quality and best score of each run; a line through the dense, one the sparse."""
    task = downstream.upstream_task
    points, metric = [], ""
    for run, scores, upstream, colour in zip(
        runs, downstream.scores, downstream.upstream, palette, strict=True
    ):
        if setting in scores and upstream is not None and task in upstream.quality:
            metric = scores[setting].metric
            x, y = upstream.quality[task], scores[setting].values[metric][scores[setting].best]
            if np.isfinite(y):
                point = np.array([x]), np.array([y])
                points.append(Line(*point, short(run.name), colour, dashed=run.dense))
    if not points:
        return None
    unit = " [%]" if downstream.is_per_cent(setting, metric) else ""

    def draw(ax: Axes) -> None:
        draw_points(
            ax,
            points,
            x_label="upstream neg. log perplexity [nats]",
            y_label=f"best {metric}{unit}",
            groups=("dense", "sparse"),
        )

    return Chart(
        f"{downstream.title(setting)} against upstream quality",
        f"{_what(setting)} at each run's best checkpoint, against how well the checkpoint that it "
        f"started from predicts held-out text (task: {task}); right and up are better. The layout "
        "is that of Figure 13 of Fedus et al. 2022; the tasks are the ones named here.",
        draw,
    )


def _what(setting: Setting) -> str:
    return f"Score on {setting.task} ({setting.split}; {setting.decoding})"
