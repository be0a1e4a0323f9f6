"""Held-out quality: against steps and time, with all tokens and with content alone; accuracy."""

from matplotlib.axes import Axes

from switch_jax.reports.comparison import Comparison
from switch_jax.reports.drawing import GREY, Chart
from switch_jax.reports.findings import Findings
from switch_jax.reports.pictures.curves import CurveChart, XAxis, axes
from switch_jax.reports.records import CONTENT_QUALITY, QUALITY

QUALITY_LABEL = "neg. log perplexity [nats]"
_MAX_MARKS = 2  # more speed-ups than these have charts of their own and no marks in the curves


def quality(findings: Findings, axis: XAxis) -> Chart | None:
    """How well each configuration predicts held-out text, against steps or time."""
    pairs = [pair for comparison in findings.comparisons for pair in comparison.pairs]
    marked = pairs if len(pairs) <= _MAX_MARKS else []
    caption = (
        f"How well each run predicts text it never trained on, against {axis.name}; "
        "higher is better, 0 would be perfect."
    )
    if any(pair.has_reached for pair in marked):
        caption += (
            " Thin lines mark the dense run's final value and where the sparse run reaches it."
        )

    def mark(ax: Axes) -> None:
        for i, pair in enumerate(marked):
            _mark(ax, pair, axis, row=i)

    return CurveChart(
        f"Held-out quality against {axis.name}",
        caption,
        QUALITY_LABEL,
        QUALITY,
        findings.held_out,
        axis,
        markers=True,
        focused=True,
        mark=mark,
    ).of(findings.configurations)


def content_quality(findings: Findings) -> Chart | None:
    """The quality without sentinels and EOS."""
    return CurveChart(
        "Held-out quality without sentinels and EOS",
        "The same on the target tokens that are part of the text: without EOS and the sentinels "
        "between spans, which are easy to predict and say little about the text.",
        QUALITY_LABEL,
        CONTENT_QUALITY,
        findings.held_out,
        markers=True,
        focused=True,
    ).of(findings.configurations)


def accuracies(findings: Findings) -> list[Chart | None]:
    """How often the model is right, against steps and time."""
    return [
        CurveChart(
            f"Held-out token accuracy against {axis.name}",
            "How often the most probable token is the right one, given the ones before it; "
            "higher is better.",
            "accuracy [%]",
            "accuracy",
            findings.held_out,
            axis,
            markers=True,
            scale=100,
        ).of(findings.configurations)
        for axis in axes(findings.configurations)
    ]


def _mark(ax: Axes, pair: Comparison, axis: XAxis, row: int) -> None:
    """The level of the dense run's final value, and the point where the sparse run reaches it."""
    ax.axhline(pair.target, color=GREY, linewidth=0.8, linestyle=":")
    if not pair.has_reached:
        return
    in_time = bool(axis.second)
    x = pair.reached.seconds * axis.second if in_time else pair.reached.step
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
