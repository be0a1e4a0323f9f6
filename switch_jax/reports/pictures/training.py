"""Training: quality against steps and time, and how the optimisation goes."""

from operator import attrgetter

from switch_jax.reports.drawing import Chart
from switch_jax.reports.findings import Findings
from switch_jax.reports.pictures.curves import CurveChart, XAxis
from switch_jax.reports.pictures.held_out import QUALITY_LABEL
from switch_jax.reports.records import QUALITY

_TRAIN = attrgetter("train")
_OPTIMISATION = (
    CurveChart(
        "Training loss",
        "All that the optimiser minimises: cross-entropy, z-loss and, in sparse runs, the "
        "routers' own losses; lower is better.",
        "loss [nats]",
        "loss",
        _TRAIN,
    ),
    CurveChart(
        "Learning rate",
        "The size of the optimiser's steps, as the schedule sets it; "
        "runs of one optimiser that are to be compared should have the same.",
        "learning rate",
        "learning_rate",
        _TRAIN,
        low=0,
    ),
    CurveChart(
        "Throughput",
        "Tokens trained on per second of wall time; higher is faster.",
        "tokens / s",
        "tokens_per_second",
        _TRAIN,
        low=0,
    ),
    CurveChart(
        "Gradient norm",
        "The length of the gradient over all parameters. "
        "Steady or falling is healthy; growing spikes announce an instability.",
        "gradient norm",
        "gradient_norm",
        _TRAIN,
        low=0,
    ),
)


def quality(findings: Findings, axis: XAxis) -> Chart | None:
    """How well each configuration predicts the batches that it trains on."""
    return CurveChart(
        f"Training quality against {axis.name}",
        f"The same measure on the training batches, against {axis.name}; higher is better. "
        "Well above the held-out curve would mean that a run learns its training text by heart.",
        QUALITY_LABEL,
        QUALITY,
        _TRAIN,
        axis,
        focused=True,
    ).of(findings.configurations)


def optimisation(findings: Findings) -> list[Chart | None]:
    """Charts of numbers in the training records, of those that some run has."""
    return [chart.of(findings.configurations) for chart in _OPTIMISATION]
