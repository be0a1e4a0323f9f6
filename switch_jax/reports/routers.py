"""The routers of a run: the load of their experts, and a chart of each other statistic."""

import math
from functools import partial

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator

from switch_jax.drawing.figures import (
    GREY,
    Chart,
    Line,
    draw_lines,
    means_of_neighbours,
    plain_ticks,
)
from switch_jax.metrics import RECORDED_STATISTICS, LineChart, Statistic
from switch_jax.reports.records import experts_choose
from switch_jax.reports.runs import Run, Series
from switch_jax.utils.units import rounded

_COLUMNS, _ROWS = 160, 128  # of a heat map: what has more is averaged


def load(stack: str, layer: str, router: Series) -> Chart:
    """A heat map with a row for each expert."""
    values = router.values["load"]
    experts = values.shape[1]
    final = values[-1] * experts
    most, least = int(np.argmax(final)), int(np.argmin(final))
    caption = (
        "Row = expert, column = stretch of steps; no colour = 1.0 = perfectly even, red = more "
        f"tokens than its share, blue = fewer. At the last step expert {most} has the most "
        f"({final[most]:.2f}× its share), expert {least} the least ({final[least]:.2f}×)."
    )
    if experts > _ROWS:
        caption += f" A row is the mean of {math.ceil(experts / _ROWS)} neighbouring experts."
    draw = partial(draw_load, step=router.step, load=values)
    return Chart(f"{stack.capitalize()} {layer} (Switch)", caption, draw)


def draw_load(ax: Axes, step: np.ndarray, load: np.ndarray) -> None:
    """Heat map of the experts' load over steps: white is even, red more, blue less.

    `load` [T, E] are fractions of the tokens, `step` [T] int their steps. Drawn is E times `load`,
    on a logarithmic scale from 1/4 to 4.
    """
    relative = load.shape[1] * means_of_neighbours(load, _COLUMNS)  # [columns, E]
    image = ax.pcolormesh(
        means_of_neighbours(step, _COLUMNS),
        means_of_neighbours(np.arange(load.shape[1]), _ROWS),
        np.log2(np.maximum(means_of_neighbours(relative.T, _ROWS), 2.0**-9)),
        cmap=matplotlib.colormaps["RdBu_r"].resampled(25),
        vmin=-2,
        vmax=2,
        rasterized=True,  # else a path for each cell
    )
    ax.grid(False)
    ax.set(xlabel="step", ylabel="expert")
    plain_ticks(ax.xaxis, most=5)
    ax.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=18)
    bar.set_ticks([-2, -1, 0, 1, 2], labels=["≤ ¼", "½", "1", "2", "≥ 4"])
    bar.set_label("load / even load")
    bar.outline.set_edgecolor(GREY)


def line_charts(run: Run, stack: str, colour: str) -> list[Chart]:
    """The charts of lines of `metrics.RECORDED_STATISTICS`, without those that no layer has."""
    routers = run.routers[stack]
    tints = shades(colour, len(routers))
    experts = max(router.values["load"].shape[1] for router in routers.values())
    no_slot = "no expert took" if experts_choose(run.facts, stack) else "found their expert full"
    later = " Stronger colour = later layer." if len(routers) > 1 else ""

    def chart(name: str, statistic: Statistic, look: LineChart) -> Chart | None:
        scale, unit = (100, "%") if statistic.unit == "share" else (1, statistic.unit)
        lines = [
            Line(router.step, scale * router.get(name), layer, tint)
            for (layer, router), tint in zip(routers.items(), tints, strict=True)
        ]
        if not any(np.isfinite(line.y).any() for line in lines):
            return None
        last = [x for router in routers.values() if np.isfinite(x := router.last(name))]
        most = statistic.text(max(last)) if last else "none"
        limit = statistic.limit(experts) if statistic.limit else None
        caption = look.caption.format(most=most, no_slot=no_slot, limit=rounded(limit or 0))
        limits = 0 if look.from_zero else None, 1.08 * scale * limit if limit else None

        def draw(ax: Axes) -> None:
            label = f"{look.label} [{unit}]" if unit else look.label
            draw_lines(ax, lines, x_label="step", y_label=label, y_limits=limits)
            if limit:
                ax.axhline(scale * limit, color=GREY, linewidth=1, linestyle=(0, (1, 2)))

        return Chart(f"{look.title}, {stack}", caption + later, draw)

    charts = (chart(name, s, s.chart) for name, s in RECORDED_STATISTICS.items() if s.chart)
    return [chart for chart in charts if chart is not None]


def shades(colour: str, n: int) -> list[tuple[float, float, float]]:
    """n shades of a colour, from light ones to the colour itself."""
    rgb = np.array(to_rgb(colour))
    return [tuple(1 - strength * (1 - rgb)) for strength in np.linspace(1, 0.5, n)[::-1]]
