"""Which charts a report has, what each says, and how to read it."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from switch_jax.reports import downstream_charts, task_charts
from switch_jax.reports.downstream import Downstream
from switch_jax.reports.figures import (
    GREY,
    Chart,
    Line,
    colours,
    draw_lines,
    draw_load,
    shades,
    short,
)
from switch_jax.reports.runs import RouterLayer, Run, Series
from switch_jax.reports.summary import QUALITY, Comparison, comparisons, held_out
from switch_jax.units import percent, time_unit

_QUALITY_LABEL = "neg. log perplexity [nats]"
_HEAT_ROWS = 128
_HEAT_CELLS = 600_000  # of all heat maps together: keeps the page below 2 MB
_FIRST_PART = 1 / 8  # of the longest run; held-out charts leave out values below its end


@dataclasses.dataclass(frozen=True)
class Section:
    """Charts under one heading."""

    title: str
    charts: list[Chart]


@dataclasses.dataclass(frozen=True)
class _Axis:
    """The horizontal axis of a chart: steps, or time in one unit for all runs."""

    name: str
    label: str
    unit: str = ""
    second: float = 0.0  # a second in that unit; 0 for steps

    def of(self, series: Series) -> np.ndarray:
        return series.seconds * self.second if self.second else series.step


_STEPS = _Axis("steps", "step")


def _time(runs: Sequence[Run]) -> _Axis:
    unit, size = time_unit(float(np.fmax.reduce([run.seconds for run in runs])))
    return _Axis("time", f"training time [{unit}]", unit, 1 / size)


def sections(runs: Sequence[Run], task: str | None, downstream: Downstream) -> list[Section]:
    """All charts in the order of the page; sections with nothing to show are left out."""
    axes = (_STEPS, _time(runs))
    found = []
    for title, charts in (
        ("Downstream against upstream", downstream_charts.against_upstream(runs, downstream)),
        ("Downstream scores", downstream_charts.over_steps(runs, downstream)),
    ):
        if charts:
            found.append(Section(title, charts))
    if any(held_out(run, task) for run in runs):
        curves = [_held_out(runs, task, axis) for axis in axes]
        accuracy = [_held_out_accuracy(runs, task, axis) for axis in axes]
        found.append(Section("Held-out quality", [*curves, *accuracy]))
    if by_task := task_charts.by_task(runs):
        found.append(Section("Held-out quality by task", by_task))
    if any(len(run.train) for run in runs):
        found.append(Section("Training curves", [_training(runs, axis) for axis in axes]))
        found.append(Section("Optimisation and speed", _optimisation(runs)))
    columns = _columns(runs)
    for run, colour in zip(runs, colours(len(runs)), strict=True):
        if run.layers:
            load = [_load(layer, columns) for layer in run.layers]
            found.append(Section(f"Load of the experts: {run.name}", load))
            routing = [*_routing(run, "encoder", colour), *_routing(run, "decoder", colour)]
            found.append(Section(f"Dropped tokens and router entropy: {run.name}", routing))
    return found


def main_charts(runs: Sequence[Run], task: str | None, downstream: Downstream) -> list[Chart]:
    """Up to six for the picture: a downstream score, curves, routing of the first sparse run."""
    axes = (_STEPS, _time(runs))
    charts = [
        *downstream_charts.against_upstream(runs, downstream)[:1],
        *downstream_charts.over_steps(runs, downstream)[:1],
        *task_charts.by_task(runs)[:2],
    ]
    if any(held_out(run, task) for run in runs):
        charts += [_held_out(runs, task, axis) for axis in axes]
    if any(len(run.train) for run in runs):
        charts.append(_training(runs, _STEPS))
    for run, colour in zip(runs, colours(len(runs)), strict=True):
        if run.layers:
            first_and_last = run.layers[:: max(1, len(run.layers) - 1)]
            routing = [_load(layer, _columns(runs)) for layer in first_and_last]
            routing += _routing(run, run.layers[0].stack, colour)
            charts += [
                dataclasses.replace(c, title=f"{short(run.name)}: {c.title}") for c in routing
            ]
            break
    else:
        charts += _optimisation(runs)
    return charts[:6]


def _columns(runs: Sequence[Run]) -> int:
    """Columns of every heat map, such that all of them together stay within `_HEAT_CELLS`."""
    rows = sum(min(layer.num_experts, _HEAT_ROWS) for run in runs for layer in run.layers)
    return max(20, min(240, _HEAT_CELLS // max(rows, 1)))


def _curves(
    runs: Sequence[Run], series: Sequence[Series | None], name: str, axis: _Axis, markers: bool
) -> list[Line]:
    return [
        Line(axis.of(s), s.get(name), short(run.name), colour, dashed=run.dense, markers=markers)
        for run, s, colour in zip(runs, series, colours(len(runs)), strict=True)
        if s is not None and len(s)
    ]


def _run_chart(
    title: str,
    caption: str,
    lines: Sequence[Line],
    axis: _Axis,
    y_label: str,
    y_limits: tuple[float | None, float | None] = (None, None),
) -> Chart:
    def draw(ax: Axes) -> None:
        draw_lines(ax, lines, x_label=axis.label, y_label=y_label, y_limits=y_limits)

    return Chart(title, f"{caption} {_legend(lines)}", draw)


def _legend(lines: Sequence[Line]) -> str:
    return "Dashed = dense." if any(line.dashed for line in lines) else ""


def _held_out(runs: Sequence[Run], task: str | None, axis: _Axis) -> Chart:
    series = [held_out(run, task) for run in runs]
    lines = _curves(runs, series, QUALITY, axis, markers=True)
    limits, cut = _focus([s for s in series if s is not None])
    pairs = comparisons(runs, task)
    caption = (
        f"How well each run predicts text it never trained on, against {axis.name}; "
        "higher is better, 0 would be perfect."
    )
    if any(pair.step is not None for pair in pairs):
        caption += (
            " Thin lines mark the dense run's final value and where the sparse run reaches it."
        )
    if cut:
        caption += " The steep first part lies below the chart."

    def draw(ax: Axes) -> None:
        draw_lines(ax, lines, x_label=axis.label, y_label=_QUALITY_LABEL, y_limits=limits)
        for i, pair in enumerate(pairs):
            _mark(ax, pair, axis, row=i)

    return Chart(f"Held-out quality against {axis.name}", f"{caption} {_legend(lines)}", draw)


def _focus(series: Sequence[Series]) -> tuple[tuple[float | None, float | None], bool]:
    """Limits of y that leave out the steep start, and whether they leave anything out."""
    finite = [(s, np.isfinite(s.get(QUALITY))) for s in series]
    curves = [(s.step[ok], s.get(QUALITY)[ok]) for s, ok in finite if ok.any()]
    if not curves:
        return (None, None), False
    start = _FIRST_PART * max(step[-1] for step, _ in curves)
    low = min(float(np.interp(start, *curve)) for curve in curves)
    high = max(float(values.max()) for _, values in curves)
    if not low < high:
        return (None, None), False
    floor = low - 0.05 * (high - low)
    cut = any(values.min() < floor for _, values in curves)
    return (floor, high + 0.08 * (high - low)), cut


def _mark(ax: Axes, pair: Comparison, axis: _Axis, row: int) -> None:
    """The level of the dense run's final value, and the point where the sparse run reaches it."""
    ax.axhline(pair.target, color=GREY, linewidth=0.8, linestyle=":")
    if pair.step is None or pair.seconds is None:
        return
    in_time = bool(axis.second)
    x = pair.seconds * axis.second if in_time else pair.step
    ratio = pair.time_speedup if in_time else pair.step_speedup
    ax.plot([x, x], [ax.get_ylim()[0], pair.target], color=GREY, linewidth=0.8, linestyle=":")
    ax.plot([x], [pair.target], "o", color="none", markeredgecolor="#222222", markersize=7)
    where = f"at {x:.3g} {axis.unit}" if in_time else f"at step {x:,.0f}"
    left, right = ax.get_xlim()
    before = x > left + 0.7 * (right - left)
    # The curves rise to the right, so the foot of the chart is free there.
    ax.annotate(
        f"{ratio:.2f}× speed-up\n{where}",
        (x, 0.03 + 0.16 * row),
        xycoords=ax.get_xaxis_transform(),
        xytext=(-4 if before else 4, 0),
        textcoords="offset points",
        ha="right" if before else "left",
        va="bottom",
        fontsize=8.5,
    )


def _held_out_accuracy(runs: Sequence[Run], task: str | None, axis: _Axis) -> Chart:
    series = [held_out(run, task) for run in runs]
    return _run_chart(
        f"Held-out token accuracy against {axis.name}",
        "How often the most probable token is the right one, given the ones before it; "
        "higher is better.",
        _in_percent(_curves(runs, series, "accuracy", axis, markers=True)),
        axis,
        "accuracy [%]",
    )


def _training(runs: Sequence[Run], axis: _Axis) -> Chart:
    lines = _curves(runs, [run.train for run in runs], QUALITY, axis, markers=False)
    return _run_chart(
        f"Training quality against {axis.name}",
        f"The same measure on the training batches, against {axis.name}; higher is better. "
        "Well above the held-out curve would mean that a run learns its training text by heart.",
        lines,
        axis,
        _QUALITY_LABEL,
    )


def _optimisation(runs: Sequence[Run]) -> list[Chart]:
    def chart(name: str, title: str, caption: str, y_label: str, low: float | None) -> Chart:
        lines = _curves(runs, [run.train for run in runs], name, _STEPS, markers=False)
        return _run_chart(title, caption, lines, _STEPS, y_label, (low, None))

    return [
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
            "runs to be compared should have the same.",
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


def _load(layer: RouterLayer, columns: int) -> Chart:
    final = layer.load[-1] * layer.num_experts
    most, least = int(np.argmax(final)), int(np.argmin(final))
    caption = (
        "Row = expert, column = stretch of steps; white = 1.0 = perfectly even, red = more tokens "
        f"than its share, blue = fewer. At the last step expert {most} has the most "
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
            Line(layer.step, getattr(layer, name), f"layer {layer.layer}", tint)
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

    shade = " Darker = later layer." if len(layers) > 1 else ""
    return [
        Chart(
            f"Tokens dropped, {stack}",
            "Share of the tokens that found their expert full and passed the layer unchanged; "
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
