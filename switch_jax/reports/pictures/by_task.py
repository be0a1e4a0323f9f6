"""Many held-out tasks at once, as the languages of mC4: Figures 7 and 8 of Fedus et al. 2022."""

import itertools
import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from switch_jax.reports.comparison import compare, pairs_of_runs
from switch_jax.reports.drawing import GREY, Chart, Line, label_ends, plain_ticks, short
from switch_jax.reports.findings import Findings
from switch_jax.reports.records import QUALITY
from switch_jax.reports.runs import Run

_MIN_TASKS = 8  # for fewer the table is enough


def by_task(findings: Findings) -> list[Chart]:
    """Final quality on each task, and how much sooner sparse runs get there on each."""
    tasks = _shared_tasks(findings.runs)
    if not tasks:
        return []
    found = findings.configurations
    models = itertools.product([c for c in found if c.dense], [c for c in found if c.sparse])
    pairs = [pair for dense, sparse in models for pair in pairs_of_runs(dense, sparse)]
    speedups = [chart for d, s in pairs if (chart := _speedups(d, s, tasks)) is not None]
    return [_quality(findings, tasks, pairs), *speedups]


def _shared_tasks(runs: Sequence[Run]) -> list[str]:
    """The tasks that every run was evaluated on, best first in the first dense run (or the first).

    Empty if they are fewer than eight; "all" does not count.
    """
    common = set.intersection(*(set(run.evals) for run in runs)) - {"all"}
    if len(common) < _MIN_TASKS:
        return []
    first = next((run for run in runs if run.dense), runs[0])
    return sorted(common, key=lambda task: (-_last(first, task), task))


def _quality(findings: Findings, tasks: Sequence[str], pairs: Sequence[tuple[Run, Run]]) -> Chart:
    names, places = _without_common_prefix(tasks), np.arange(len(tasks))
    points = [
        Line(
            places,
            np.array([_last(run, task) for task in tasks]),
            short(run.name),
            c.colour,
            dashed=run.dense,
        )
        for c in findings.configurations
        for run in c.runs
    ]
    caption = (
        f"The last held-out value on each of {len(tasks)} tasks, best of the first dense run on "
        "the left; higher is better. Hollow = dense. The layout is that of Figure 7 of Fedus et "
        "al. 2022."
    )
    for dense, sparse in pairs:
        ahead = sum(_last(sparse, task) > _last(dense, task) for task in tasks)
        caption += f" {sparse.name} is ahead of {dense.name} on {ahead} of them."

    def draw(ax: Axes) -> None:
        for p in points:
            ax.plot(p.x, p.y, "o", color=p.colour, markersize=4, markerfacecolor=p.inside)
        ax.set_xticks(range(len(names)), labels=names, rotation=90, fontsize=6)
        ax.set(ylabel="neg. log perplexity [nats]")
        ax.margins(x=0.01)
        plain_ticks(ax.yaxis, most=6)
        label_ends(ax, points)

    return Chart("Held-out quality by task", caption, draw, wide=True)


def _speedups(dense: Run, sparse: Run, tasks: Sequence[str]) -> Chart | None:
    """Figure 8: a histogram over tasks of the speed-up of a sparse run over a dense one."""
    found = [pair for task in tasks if (pair := compare(dense, sparse, task)) is not None]
    ratios = [pair.step_speedup for pair in found if pair.has_reached]
    if not found:
        return None
    caption = (
        f"Steps of {dense.name} over the steps that {sparse.name} takes to the same held-out "
        "value, by task: the layout of Figure 8 of Fedus et al. 2022."
    )
    if ratios:
        caption += f" The median is {np.median(ratios):.2f}×."
    if len(ratios) < len(found):
        caption += f" On {len(found) - len(ratios)} of {len(found)} it never gets there."

    def draw(ax: Axes) -> None:
        ax.hist(ratios, bins="auto", color=GREY, edgecolor="white")
        ax.axvline(1.0, color="#222222", linewidth=1, linestyle=":")
        ax.set(xlabel="speed-up in steps", ylabel="tasks")

    return Chart(f"Speed-up by task: {short(sparse.name)}", caption, draw)


def _last(run: Run, task: str) -> float:
    return run.evals[task].last(QUALITY)


def _without_common_prefix(tasks: Sequence[str]) -> list[str]:
    """The names without what all begin with, up to its last full stop: mC4's are mc4.CODE."""
    prefix, stop, _ = os.path.commonprefix(list(tasks)).rpartition(".")
    return [task.removeprefix(prefix + stop) for task in tasks]
