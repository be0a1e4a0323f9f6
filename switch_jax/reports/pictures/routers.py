"""The routers of a run: load of the experts, dropped tokens, experts of a token and entropy."""

import math
from collections.abc import Sequence
from functools import partial

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator

from switch_jax.reports.drawing import (
    GREY,
    Chart,
    Line,
    draw_lines,
    means_of_neighbours,
    plain_ticks,
)
from switch_jax.reports.runs import RouterLayer, Run
from switch_jax.units import percent

_HEAT_ROWS = 128
_HEAT_CELLS = 600_000  # of all heat maps together: keeps the page below 2 MB


def columns(runs: Sequence[Run]) -> int:
    """Columns of every heat map, such that all of them together stay within `_HEAT_CELLS`."""
    rows = sum(min(layer.num_experts, _HEAT_ROWS) for run in runs for layer in run.layers)
    return max(20, min(240, _HEAT_CELLS // max(rows, 1)))


def load(layer: RouterLayer, columns: int) -> Chart:
    """A heat map with a row for each expert."""
    step, values = layer.statistics.step, layer.statistics.values["load"]
    final = values[-1] * layer.num_experts
    most, least = int(np.argmax(final)), int(np.argmin(final))
    caption = (
        "Row = expert, column = stretch of steps; no colour = 1.0 = perfectly even, red = more "
        f"tokens than its share, blue = fewer. At the last step expert {most} has the most "
        f"({final[most]:.2f}× its share), expert {least} the least ({final[least]:.2f}×)."
    )
    group = math.ceil(layer.num_experts / _HEAT_ROWS)
    if group > 1:
        caption += f" A row is the mean of {group} neighbouring experts."
    draw = partial(draw_load, step=step, load=values, columns=columns, rows=_HEAT_ROWS)
    return Chart(layer.title, caption, draw)


def draw_load(ax: Axes, step: np.ndarray, load: np.ndarray, *, columns: int, rows: int) -> None:
    """Heat map of the experts' load over steps: white is even, red more, blue less.

    `load` [T, E] are fractions of the tokens, `step` [T] int their steps. Drawn is E times `load`,
    on a logarithmic scale from 1/4 to 4. Of more records than `columns`, or more experts than
    `rows`, neighbours are averaged.
    """
    experts = load.shape[1]
    relative = means_of_neighbours(load, columns) * experts
    group = math.ceil(experts / rows)
    relative = means_of_neighbours(relative.T, rows).T
    per_column = math.ceil(len(step) / columns)
    # A record is about the steps before it, so a column ends at the step of its last record.
    ends = np.append(step[per_column - 1 :: per_column], step[-1])[: len(relative)]
    start = max(0, int(step[0]) - (int(step[1]) - int(step[0]))) if len(step) > 1 else 0
    edges = np.linspace(start, max(step[-1], start + 1), len(relative) + 1)
    even_columns = np.searchsorted(ends, (edges[:-1] + edges[1:]) / 2)
    image = ax.imshow(
        np.log2(np.maximum(relative[even_columns.clip(max=len(ends) - 1)], 2.0**-9)).T,
        extent=(edges[0], edges[-1], -0.5, experts - 0.5),
        origin="lower",
        aspect="auto",
        interpolation="none",
        cmap=matplotlib.colormaps["RdBu_r"].resampled(25),
        vmin=-2,
        vmax=2,
    )
    ax.grid(False)
    ax.set(xlabel="step", ylabel="expert" if group == 1 else f"expert (rows of {group})")
    plain_ticks(ax.xaxis, most=5)
    ax.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=18)
    bar.set_ticks([-2, -1, 0, 1, 2], labels=["≤ ¼", "½", "1", "2", "≥ 4"])
    bar.set_label("load / even load")
    bar.outline.set_edgecolor(GREY)


def dropped_and_entropy(run: Run, stack: str, colour: str) -> list[Chart]:
    """Dropped tokens and router entropy of one stack, a line per layer.

    And tokens with several experts, where there may be any.
    """
    layers = [layer for layer in run.layers if layer.stack == stack]
    if not layers:
        return []

    def lines(name: str, scale: float) -> list[Line]:
        return [
            Line(layer.statistics.step, scale * layer.statistics.get(name), layer.name, tint)
            for layer, tint in zip(layers, shades(colour, len(layers)), strict=True)
        ]

    most = max(layer.statistics.last("dropped") for layer in layers)
    why = "found their expert full, and got nothing from it; lower is better, 0 = none"
    if run.experts_choose(stack):
        why = "no expert took"
    highest = math.log(max(layer.num_experts for layer in layers))

    def draw_dropped(ax: Axes) -> None:
        label = "tokens dropped [%]"
        draw_lines(ax, lines("dropped", 100), x_label="step", y_label=label, y_limits=(0, None))

    def draw_entropy(ax: Axes) -> None:
        label, limits = "router entropy [nats]", (0, 1.08 * highest)
        draw_lines(ax, lines("entropy", 1), x_label="step", y_label=label, y_limits=limits)
        ax.axhline(highest, color=GREY, linewidth=1, linestyle=(0, (1, 2)))

    def draw_several(ax: Axes) -> None:
        label, shares = "tokens with several experts [%]", lines("several_experts", 100)
        draw_lines(ax, shares, x_label="step", y_label=label, y_limits=(0, None))

    shade = " Stronger colour = later layer." if len(layers) > 1 else ""
    several = Chart(
        f"Tokens with several experts, {stack}",
        "Share of the tokens that have a slot in two or more experts; those without any are in "
        f"the picture of dropped tokens, and the others have one.{shade}",
        draw_several,
    )
    may_be_several = any(np.isfinite(layer.statistics.last("several_experts")) for layer in layers)
    return [
        *([several] if may_be_several else []),
        Chart(
            f"Tokens dropped, {stack}",
            f"Share of the tokens that {why}. At the last step {percent(most)} at most.{shade}",
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


def shades(colour: str, n: int) -> list[tuple[float, float, float]]:
    """n shades of a colour, light to dark."""
    rgb = np.array(to_rgb(colour))
    light, dark = 1 - 0.65 * (1 - rgb), 0.6 * rgb
    return [tuple(light + (dark - light) * i / max(n - 1, 1)) for i in range(n)]
