"""Which charts a report has, what each says, and how to read it."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from switch_jax.reports import downstream_charts, study_charts, task_charts
from switch_jax.reports.configurations import Configuration, is_study, runs_of
from switch_jax.reports.curves import STEPS, XAxis, curve_chart, curves, focus, time_axis
from switch_jax.reports.downstream import Downstream
from switch_jax.reports.figures import GREY, Chart, Line, draw_lines, draw_load, shades, short
from switch_jax.reports.held_out import QUALITY, own_held_out
from switch_jax.reports.held_out_charts import QUALITY_LABEL, held_out_charts, quality
from switch_jax.reports.runs import RouterLayer, Run
from switch_jax.units import percent

_HEAT_ROWS = 128
_HEAT_CELLS = 600_000  # of all heat maps together: keeps the page below 2 MB
_UNFOLDED = 2  # with more sparse configurations, charts of their routers are folded away


@dataclasses.dataclass(frozen=True)
class Section:
    """Charts under one heading; folded: the reader opens them."""

    title: str
    charts: list[Chart]
    folded: bool = False


def sections(
    found: Sequence[Configuration], task: str | None, downstream: Downstream
) -> list[Section]:
    """All charts in the order of the page; sections with nothing to show are left out."""
    all_sections = [
        Section(
            "Downstream against upstream", downstream_charts.against_upstream(found, downstream)
        ),
        Section("Downstream scores", downstream_charts.over_steps(found, downstream)),
        Section("Held-out quality", held_out_charts(found, task)),
        Section("Speed-up over training", study_charts.speedup_charts(found, task)),
        Section("Held-out quality by task", task_charts.by_task(found)),
    ]
    if any(len(run.train) for run in runs_of(found)):
        axes = (STEPS, time_axis(found))
        training = [_training(found, axis) for axis in axes]
        all_sections.append(Section("Training curves", training))
        all_sections.append(Section("Optimisation and speed", _optimisation(found)))
    all_sections += _of_routers(found)
    return [section for section in all_sections if section.charts]


def main_charts(
    found: Sequence[Configuration], task: str | None, downstream: Downstream
) -> list[Chart]:
    """Those of the picture: four of a study of experts, otherwise up to six.

    The six are a downstream score, curves, and the routing of the first sparse run.
    """
    if is_study(found):
        smallest_dense = found[0]  # that of the same FLOPs, if a larger one is among them
        four = (
            quality(found, task, STEPS),
            quality(found, task, time_axis(found)),
            study_charts.loss_against_parameters(found, task),
            study_charts.speedup(found, task, STEPS, smallest_dense),
        )
        return [chart for chart in four if chart is not None]
    runs = runs_of(found)
    charts = [
        *downstream_charts.against_upstream(found, downstream)[:1],
        *downstream_charts.over_steps(found, downstream)[:1],
        *task_charts.by_task(found)[:2],
    ]
    if any(own_held_out(run, task) for run in runs):
        charts += [quality(found, task, axis) for axis in (STEPS, time_axis(found))]
    if any(len(run.train) for run in runs):
        charts.append(_training(found, STEPS))
    for configuration in found:
        run = configuration.runs[0]
        if run.layers:
            first_and_last = run.layers[:: max(1, len(run.layers) - 1)]
            routing = [_load(layer, _columns([run])) for layer in first_and_last]
            routing += _routing(run, run.layers[0].stack, configuration.colour)
            charts += [
                dataclasses.replace(c, title=f"{short(run.name)}: {c.title}") for c in routing
            ]
            break
    else:
        charts += _optimisation(found)
    return charts[:6]


def _of_routers(found: Sequence[Configuration]) -> list[Section]:
    """Load, dropped tokens and entropy of the first run of each sparse configuration."""
    sparse = [(c.runs[0], c.colour) for c in found if c.runs[0].layers]
    columns, folded = _columns([run for run, _ in sparse]), len(sparse) > _UNFOLDED
    sections = []
    for run, colour in sparse:
        load = [_load(layer, columns) for layer in run.layers]
        routing = [*_routing(run, "encoder", colour), *_routing(run, "decoder", colour)]
        sections.append(Section(f"Load of the experts: {run.name}", load, folded))
        title = f"Dropped tokens and router entropy: {run.name}"
        sections.append(Section(title, routing, folded))
    return sections


def _columns(runs: Sequence[Run]) -> int:
    """Columns of every heat map, such that all of them together stay within `_HEAT_CELLS`."""
    rows = sum(min(layer.num_experts, _HEAT_ROWS) for run in runs for layer in run.layers)
    return max(20, min(240, _HEAT_CELLS // max(rows, 1)))


def _training(found: Sequence[Configuration], axis: XAxis) -> Chart:
    limits, cut = focus(curves(found, lambda run: run.train, QUALITY, STEPS))
    caption = (
        f"The same measure on the training batches, against {axis.name}; higher is better. "
        "Well above the held-out curve would mean that a run learns its training text by heart."
    )
    if cut:
        caption += " The steep first part lies below the chart."
    lines = curves(found, lambda run: run.train, QUALITY, axis)
    title = f"Training quality against {axis.name}"
    return curve_chart(title, caption, found, lines, axis, QUALITY_LABEL, limits)


def _optimisation(found: Sequence[Configuration]) -> list[Chart]:
    """Charts of numbers in the training records, of those that some run has."""

    def chart(name: str, title: str, caption: str, y_label: str, low: float | None) -> Chart | None:
        lines = curves(found, lambda run: run.train, name, STEPS)
        if not lines:
            return None
        return curve_chart(title, caption, found, lines, STEPS, y_label, (low, None))

    charts = [
        chart(
            "loss",
            "Training loss",
            "All that the optimiser minimises: cross-entropy, z-loss and, in sparse runs, the "
            "routers' own losses; lower is better.",
            "loss [nats]",
            None,
        ),
        chart(
            "learning_rate",
            "Learning rate",
            "The size of the optimiser's steps, as the schedule sets it; "
            "runs of one optimiser that are to be compared should have the same.",
            "learning rate",
            0,
        ),
        chart(
            "tokens_per_second",
            "Throughput",
            "Tokens trained on per second of wall time; higher is faster.",
            "tokens / s",
            0,
        ),
        chart(
            "gradient_norm",
            "Gradient norm",
            "The length of the gradient over all parameters. "
            "Steady or falling is healthy; growing spikes announce an instability.",
            "gradient norm",
            0,
        ),
    ]
    return [chart for chart in charts if chart is not None]


def _load(layer: RouterLayer, columns: int) -> Chart:
    final = layer.load[-1] * layer.num_experts
    most, least = int(np.argmax(final)), int(np.argmin(final))
    caption = (
        "Row = expert, column = stretch of steps; no colour = 1.0 = perfectly even, red = more "
        f"tokens than its share, blue = fewer. At the last step expert {most} has the most "
        f"({final[most]:.2f}× its share), expert {least} the least ({final[least]:.2f}×)."
    )
    group = math.ceil(layer.num_experts / _HEAT_ROWS)
    if group > 1:
        caption += f" A row is the mean of {group} neighbouring experts."

    def draw(ax: Axes) -> None:
        draw_load(ax, layer.step, layer.load, columns=columns, rows=_HEAT_ROWS)

    return Chart(layer.title, caption, draw)


def _routing(run: Run, stack: str, colour: str) -> list[Chart]:
    """Dropped tokens and router entropy of one stack, a line per layer."""
    layers = [layer for layer in run.layers if layer.stack == stack]
    if not layers:
        return []
    tints = shades(colour, len(layers))

    def lines(name: str) -> list[Line]:
        return [
            Line(layer.step, getattr(layer, name), layer.name, tint)
            for layer, tint in zip(layers, tints, strict=True)
        ]

    dropped = _in_percent(lines("dropped"))
    most = max(float(layer.dropped[-1]) for layer in layers)
    highest = math.log(max(layer.num_experts for layer in layers))

    def draw_dropped(ax: Axes) -> None:
        draw_lines(ax, dropped, x_label="step", y_label="tokens dropped [%]", y_limits=(0, None))

    def draw_entropy(ax: Axes) -> None:
        draw_lines(
            ax,
            lines("entropy"),
            x_label="step",
            y_label="router entropy [nats]",
            y_limits=(0, 1.08 * highest),
        )
        ax.axhline(highest, color=GREY, linewidth=1, linestyle=(0, (1, 2)))

    shade = " Stronger colour = later layer." if len(layers) > 1 else ""
    return [
        Chart(
            f"Tokens dropped, {stack}",
            "Share of the tokens that found their expert full, and got nothing from it; "
            f"lower is better, 0 = none. At the last step {percent(most)} at most.{shade}",
            draw_dropped,
        ),
        Chart(
            f"Router entropy, {stack}",
            f"How undecided the router is about a token: 0 = certain; the dotted line, "
            f"{highest:.2f} = ln(experts), = no preference at all. Lower = the router is "
            f"surer of its choices.{shade}",
            draw_entropy,
        ),
    ]


def _in_percent(lines: Sequence[Line]) -> list[Line]:
    return [dataclasses.replace(line, y=100 * line.y) for line in lines]
