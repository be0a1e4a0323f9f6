"""Charts of held-out quality: against steps and time, with all tokens and with content alone."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from switch_jax.reports.comparison import Comparison, compare_all
from switch_jax.reports.configurations import Configuration, is_study, runs_of
from switch_jax.reports.curves import (
    STEPS,
    XAxis,
    curve_chart,
    curves,
    focus,
    legend,
    time_axis,
)
from switch_jax.reports.figures import GREY, Chart, draw_lines
from switch_jax.reports.held_out import CONTENT_QUALITY, QUALITY, own_held_out
from switch_jax.reports.study_charts import loss_against_parameters

QUALITY_LABEL = "neg. log perplexity [nats]"
_MAX_MARKS = 2  # more speed-ups than these have charts of their own and no marks in the curves


def held_out_charts(found: Sequence[Configuration], task: str | None) -> list[Chart]:
    """All of them; empty where no run was evaluated."""
    if not any(own_held_out(run, task) for run in runs_of(found)):
        return []
    axes = (STEPS, time_axis(found))
    parameters = loss_against_parameters(found, task) if is_study(found) else None
    return [
        *(quality(found, task, axis) for axis in axes),
        *([parameters] if parameters else []),
        *_content(found, task),
        *(_accuracy(found, task, axis) for axis in axes),
    ]


def quality(found: Sequence[Configuration], task: str | None, axis: XAxis) -> Chart:
    """How well each configuration predicts held-out text, against steps or time."""
    lines = curves(found, lambda run: own_held_out(run, task), QUALITY, axis, markers=True)
    limits, cut = focus(curves(found, lambda run: own_held_out(run, task), QUALITY, STEPS))
    pairs = [pair for comparison in compare_all(found, task) for pair in comparison.pairs]
    marked = pairs if len(pairs) <= _MAX_MARKS else []
    caption = (
        f"How well each run predicts text it never trained on, against {axis.name}; "
        "higher is better, 0 would be perfect."
    )
    if any(pair.step is not None for pair in marked):
        caption += (
            " Thin lines mark the dense run's final value and where the sparse run reaches it."
        )
    if cut:
        caption += " The steep first part lies below the chart."

    def draw(ax: Axes) -> None:
        draw_lines(ax, lines, x_label=axis.label, y_label=QUALITY_LABEL, y_limits=limits)
        for i, pair in enumerate(marked):
            _mark(ax, pair, axis, row=i)

    return Chart(f"Held-out quality against {axis.name}", f"{caption} {legend(found, lines)}", draw)


def _content(found: Sequence[Configuration], task: str | None) -> list[Chart]:
    """A chart of the quality without sentinels and EOS, if any run has it."""
    lines = curves(found, lambda run: own_held_out(run, task), CONTENT_QUALITY, STEPS, markers=True)
    if not lines:
        return []
    limits, cut = focus(lines)
    caption = (
        "The same on the target tokens that are part of the text: without EOS and the sentinels "
        "between spans, which are easy to predict and say little about the text."
    )
    if cut:
        caption += " The steep first part lies below the chart."
    title = "Held-out quality without sentinels and EOS"
    return [curve_chart(title, caption, found, lines, STEPS, QUALITY_LABEL, limits)]


def _accuracy(found: Sequence[Configuration], task: str | None, axis: XAxis) -> Chart:
    lines = curves(
        found, lambda run: own_held_out(run, task), "accuracy", axis, markers=True, scale=100
    )
    return curve_chart(
        f"Held-out token accuracy against {axis.name}",
        "How often the most probable token is the right one, given the ones before it; "
        "higher is better.",
        found,
        lines,
        axis,
        "accuracy [%]",
    )


def _mark(ax: Axes, pair: Comparison, axis: XAxis, row: int) -> None:
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
