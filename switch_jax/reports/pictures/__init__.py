"""Which charts a report has: a section of each kind on the page, and the main ones as a picture.

curves      over steps or time: held-out and training quality, accuracy, loss, rate, speed, norm
downstream  scores over steps, and against upstream quality
parameters  loss against parameters            speedup     speed-up over training
routers     load, dropped tokens, entropy      by_task     many held-out tasks
"""

import dataclasses

from switch_jax.reports.drawing import Chart, short
from switch_jax.reports.findings import Findings
from switch_jax.reports.pictures import by_task, curves, downstream, routers, speedup
from switch_jax.reports.pictures.parameters import loss_against_parameters
from switch_jax.run_folder import STACKS

_UNFOLDED = 2  # with more sparse configurations, charts of their routers are folded away


@dataclasses.dataclass(frozen=True)
class Section:
    """Charts under one heading; folded: the reader opens them."""

    title: str
    charts: list[Chart]
    folded: bool = False


def sections(findings: Findings) -> list[Section]:
    """All charts in the order of the page; what there is nothing to show of is left out."""
    found = findings.configurations
    axes = curves.axes(found)
    sparse = [(c.runs[0], c.colour) for c in found if c.runs[0].layers]
    columns, folded = routers.columns([run for run, _ in sparse]), len(sparse) > _UNFOLDED
    charts: dict[str, list[Chart | None]] = {
        "Downstream against upstream": downstream.against_upstream(findings),
        "Downstream scores": downstream.over_steps(findings),
        "Held-out quality": [
            *(curves.held_out(findings, axis) for axis in axes),
            loss_against_parameters(findings) if findings.is_study else None,
            curves.CONTENT_HELD_OUT.of(findings),
            *(curves.ACCURACY.of(findings, axis) for axis in axes),
        ],
        "Speed-up over training": speedup.speedup_charts(findings),
        "Held-out quality by task": [*by_task.by_task(findings)],
        "Training curves": [curves.TRAINING_QUALITY.of(findings, axis) for axis in axes],
        "Optimisation and speed": [chart.of(findings) for chart in curves.OPTIMISATION],
    }
    of_routers: dict[str, list[Chart | None]] = {}
    for run, colour in sparse:
        of_routers[f"Load of the experts: {run.name}"] = [
            routers.load(layer, columns)
            for layer in run.layers
            if not run.experts_choose(layer.stack)
        ]
        of_routers[f"Dropped tokens and router entropy: {run.name}"] = [
            chart for stack in STACKS for chart in routers.dropped_and_entropy(run, stack, colour)
        ]
    all_sections = [
        *(Section(title, _there(several)) for title, several in charts.items()),
        *(Section(title, _there(several), folded) for title, several in of_routers.items()),
    ]
    return [section for section in all_sections if section.charts]


def main_charts(findings: Findings) -> list[Chart]:
    """Those of the picture: four of a study of experts, otherwise up to six.

    The six are a downstream score, curves, and the routing of the first sparse run.
    """
    found = findings.configurations
    quality = [curves.held_out(findings, axis) for axis in curves.axes(found)]
    if findings.is_study:
        smallest_dense = found[0]  # that of the same FLOPs, if a larger one is among them
        of_sizes = loss_against_parameters(findings)
        return _there([*quality, of_sizes, speedup.speedup(findings, curves.STEPS, smallest_dense)])
    charts = [
        *_there(downstream.against_upstream(findings))[:1],
        *_there(downstream.over_steps(findings))[:1],
        *by_task.by_task(findings)[:2],
        *quality,
        curves.TRAINING_QUALITY.of(findings),
    ]
    first_sparse = next((c for c in found if c.runs[0].layers), None)
    if first_sparse is None:
        charts += [chart.of(findings) for chart in curves.OPTIMISATION]
    else:
        run = first_sparse.runs[0]
        layers = [layer for layer in run.layers if not run.experts_choose(layer.stack)]
        first_and_last = layers[:: max(1, len(layers) - 1)]
        routing = [routers.load(layer, routers.columns([run])) for layer in first_and_last]
        routing += routers.dropped_and_entropy(run, run.layers[0].stack, first_sparse.colour)
        charts += [dataclasses.replace(c, title=f"{short(run.name)}: {c.title}") for c in routing]
    return _there(charts)[:6]


def _there(charts: list[Chart | None]) -> list[Chart]:
    return [chart for chart in charts if chart is not None]
