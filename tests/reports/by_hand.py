"""Runs of a few numbers written by hand."""

import dataclasses

import numpy as np
from matplotlib.figure import Figure

from switch_jax.reports.configurations import group_runs
from switch_jax.reports.findings import Findings
from switch_jax.reports.runs import Origin, Run
from switch_jax.reports.series import Series


def series(points, seconds_per_step=1.0, **others):
    """A curve through (step, value); others: name -> values."""
    step, value = (np.array(column) for column in zip(*points, strict=True))
    values = {"neg_log_perplexity": value, **{name: np.array(x) for name, x in others.items()}}
    return Series(step, step * seconds_per_step, values)


def run(name, experts, points, *, seconds_per_step=1.0, task="t", config="", content=None, **facts):
    """A run whose training and held-out curves go through (step, value)."""
    others = {} if content is None else {"content_neg_log_perplexity": content}
    curve = series(points, seconds_per_step, **others)
    facts = {"num_experts": experts, "batch_tokens": 2048, "device": "cpu x 2", **facts}
    return Run(name, name, facts, config, curve, {task: curve} if task else {})


def seed(number, name, experts, points, **facts):
    """A run with a config, whose lines of seed and folder are as gin writes them."""
    config = (
        f"MODEL_DIR = \\\n    '/a/rather/long/folder/{name}_{number}'\nNUM_EXPERTS = {experts}\n"
        f"RANDOM_SEED = {number}\nRunConfig.random_seed = %RANDOM_SEED\n"
    )
    return run(f"{name}_{number}", experts, points, seed=number, config=config, **facts)


def tuned(number, name, start, *, step=3000, path=None, points=((10, -1.0),)):
    """A run with a config that started from a checkpoint of `start`; None: not to be read."""
    path = path or f"/a/rather/long/folder/{start.name}/checkpoints/{step}"
    run = seed(number, name, 8, points, initial_checkpoint=path)
    config = (
        f"INITIAL_CHECKPOINT_PATH = \\\n    '{path}'\n{run.config}"
        "RunConfig.initial_checkpoint_path = %INITIAL_CHECKPOINT_PATH\n"
    )
    return dataclasses.replace(run, config=config, origin=Origin("start", step, start))


def findings(*runs, threshold=None):
    """What a report of these runs finds."""
    return Findings(group_runs(runs), threshold)


def drawn(chart):
    """The axes of a chart."""
    ax = Figure().add_subplot()
    chart.draw(ax)
    return ax
