"""Runs of a few numbers written by hand."""

import json

import numpy as np
from matplotlib.figure import Figure

from switch_jax.reports.findings import Findings
from switch_jax.reports.runs import Run, Series


def series(points, seconds_per_step=1.0, **others):
    """A curve through (step, value); others: name -> values."""
    step, value = (np.array(column) for column in zip(*points, strict=True))
    values = {"neg_log_perplexity": value, **{name: np.array(x) for name, x in others.items()}}
    return Series(step, step * seconds_per_step, values)


def run(name, experts, points, *, seconds_per_step=1.0, task="t", settings=None, **facts):
    """A run whose training and held-out curves go through (step, value)."""
    curve = series(points, seconds_per_step)
    facts = {"num_experts": experts, "batch_tokens": 2048, "device": "cpu x 2", **facts}
    going = points[-1][0] < facts.get("train_steps", 0)
    evals = {task: curve} if task else {}
    return Run(name, name, facts, settings or {}, curve, evals, unfinished=going)


def write_lines(folder, lines):
    """Writes metrics.jsonl; returns the folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    return folder


def findings(*runs):
    """What a report of these runs finds."""
    return Findings(list(runs))


def drawn(chart):
    """The axes of a chart."""
    ax = Figure().add_subplot()
    chart.draw(ax)
    return ax
