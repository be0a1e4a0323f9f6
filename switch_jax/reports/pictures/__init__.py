"""Which charts a report has: a section of each kind on the page, and the main ones as a picture.

curves    lines over steps or time, which held_out, training and downstream have
held_out  held-out quality and accuracy        parameters  loss against parameters
training  quality, loss, rate, speed, norm     speedup     speed-up over training
routers   load, dropped tokens, entropy        by_task     many held-out tasks
downstream  scores over steps, and against upstream quality
"""

import dataclasses

from switch_jax.reports.drawing import Chart, short
from switch_jax.reports.findings import Findings
from switch_jax.reports.pictures import by_task, downstream, held_out, routers, speedup, training
from switch_jax.reports.pictures.curves import STEPS, axes
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
    sparse = [(c.runs[0], c.colour) for c in found if c.runs[0].layers]
    columns, folded = routers.columns([run for run, _ in sparse]), len(sparse) > _UNFOLDED
    charts: dict[str, list[Chart | None]] = {
        "Downstream against upstream": downstream.against_upstream(findings),
        "Downstream scores": downstream.over_steps(findings),
        "Held-out quality": [
            *(held_out.quality(findings, axis) for axis in axes(found)),
            loss_against_parameters(findings) if findings.is_study else None,
            held_out.content_quality(findings),
            *held_out.accuracies(findings),
        ],
        "Speed-up over training": speedup.speedup_charts(findings),
        "Held-out quality by task": [*by_task.by_task(findings)],
        "Training curves": [training.quality(findings, axis) for axis in axes(found)],
        "Optimisation and speed": training.optimisation(findings),
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
    quality = [held_out.quality(findings, axis) for axis in axes(found)]
    if findings.is_study:
        smallest_dense = found[0]  # that of the same FLOPs, if a larger one is among them
        of_sizes = loss_against_parameters(findings)
        return _there([*quality, of_sizes, speedup.speedup(findings, STEPS, smallest_dense)])
    charts = [
        *_there(downstream.against_upstream(findings))[:1],
        *_there(downstream.over_steps(findings))[:1],
        *by_task.by_task(findings)[:2],
        *quality,
        training.quality(findings, STEPS),
    ]
    first_sparse = next((c for c in found if c.runs[0].layers), None)
    if first_sparse is None:
        charts += training.optimisation(findings)
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
