"""Renders the report as one HTML page, with the template page.html."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from switch_jax.drawing import figures
from switch_jax.drawing.figures import Chart
from switch_jax.reports import curves, routers
from switch_jax.reports.findings import Findings
from switch_jax.reports.records import QUALITY, experts_choose
from switch_jax.reports.runs import Run
from switch_jax.reports.table import table
from switch_jax.utils.units import perplexity, rounded

if TYPE_CHECKING:  # it loads JAX and TensorFlow
    from switch_jax.inference.continuations import HeldOutText

_UNFOLDED = 2  # with more sparse runs, charts of their routers are folded away


def render(findings: Findings, text: HeldOutText | None = None) -> str:
    """Renders the whole page, which loads no other file; text of the runs is escaped.

    `text` is what the runs wrote, if they were asked.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        findings=findings,
        text=text,
        cards=[_card(findings, run) for run in findings.runs],
        sections=sections(findings),
        folded=len(_routed(findings)) > _UNFOLDED,
        table=table(findings),
        svg_data_url=figures.svg_data_url,
    )


def sections(findings: Findings) -> dict[str, list[Chart]]:
    """Returns the charts below each heading, in the order of the page."""
    axes = curves.both_axes(findings)
    found = {
        "Held-out quality": [
            *(curves.held_out(findings, axis) for axis in axes),
            *curves.scores(findings),
        ],
        "Speed-up over training": [curves.speedup(findings, axis) for axis in axes],
        "Training curves": [curves.training(findings, axis) for axis in axes],
        "Optimisation and speed": curves.optimisation(findings),
    }
    for name, run, colour in _routed(findings):
        found[f"Load of the experts: {name}"] = [
            routers.load(stack, layer, router)
            for stack, layers in run.routers.items()
            if not experts_choose(run.facts, stack)
            for layer, router in layers.items()
        ]
        found[f"Routers: {name}"] = [
            chart for stack in run.routers for chart in routers.line_charts(run, stack, colour)
        ]
    there = {title: [c for c in charts if c is not None] for title, charts in found.items()}
    return {title: charts for title, charts in there.items() if charts}


def _routed(findings: Findings) -> list[tuple[str, Run, str]]:
    """Returns the runs with routers, each seed by itself, after their names, with their colours."""
    return [
        (f"{run.name}, seed {seed.seed}" if run.seeds else run.name, seed, colour)
        for run in findings.runs
        for colour in [findings.colours[run.name]]
        for seed in run.each_seed
        if seed.routers
    ]


def _card(findings: Findings, run: Run) -> tuple[Run, str, str]:
    """Returns a run's card at the top of the page: the run, its held-out value, what that is.

    The value is that of the last step at which all runs were evaluated, if there is one.
    """
    going = run.unfinished
    state = f" Still at step {run.last_step:,} of {run.facts['train_steps']:,}." if going else ""
    whole, curve = findings.held_out(run), findings.compared(run)
    if whole is None or curve is None:
        yet = "No task is common to all" if run.evals else "Not evaluated on held-out text yet"
        return run, "–", f"{yet}.{state}"
    value, step, end = curve.last(QUALITY), curve.step[-1], whole.step[-1]
    shown, text = rounded(value), ""
    if run.seeds:
        shown += f" ± {rounded(float(curve.spread[QUALITY][-1]))}"
        text = f"mean and standard deviation of {len(run.seeds)} seeds; "
    last = "latest" if going else "final"
    text += f"{last} held-out" if step == end else "held-out"
    text += f" neg. log perplexity [nats] (perplexity {perplexity(value):.4g}) at step {step:,}"
    if findings.ends_differ and findings.common_step:
        text += ", the last at which all were evaluated"
    if math.isfinite(curve.seconds[-1]):
        text += f", after {findings.duration(float(curve.seconds[-1]))}"
    if step < end:
        text += f". The {last} value, at step {end:,}, is {rounded(whole.last(QUALITY))}"
    if findings.ends_differ and not findings.common_step:
        text += ". Not to be compared: there is no step at which all were evaluated"
    return run, shown, f"{text}.{state}"
