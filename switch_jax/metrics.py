"""What is measured of every router: how it is joined, and how records and reports show it.

Nothing here loads JAX, which reports do without.
"""

import dataclasses
import enum
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from switch_jax.utils.units import percent, rounded


class Join(enum.StrEnum):
    """How the values of devices, microbatches, layers or steps become one.

    A mean over devices and microbatches is weighted by their real tokens.
    """

    MEAN = "mean"
    SUM = "sum"
    LARGEST = "largest"

    def of(self, values: Sequence[Any]) -> np.ndarray:
        """Joins numbers, or arrays of the same shape, all of the same weight."""
        functions: Mapping[Join, Callable[..., np.ndarray]] = {
            Join.MEAN: np.mean,
            Join.SUM: np.sum,
            Join.LARGEST: np.max,
        }
        return functions[self](values, axis=0)


@dataclasses.dataclass(frozen=True)
class LineChart:
    """A statistic over steps, with a line for each layer.

    Attributes:
      title: of the chart, and of the row in the table of results.
      label: of the vertical axis, without the unit.
      caption: may name {most}, the largest value of the last step; {no_slot}, why tokens have none;
        and {limit}, see `Statistic.limit`.
      from_zero: whether the vertical axis begins at 0.
    """

    title: str
    label: str
    caption: str
    from_zero: bool = True


@dataclasses.dataclass(frozen=True)
class Statistic:
    """A field of `moe.RouterStatistics`.

    Attributes:
      join: what becomes of several values.
      meaning: what docs/run_folder.md says of it; empty where records of routers do not have it.
      unit: 'share', from 0 to 1 and shown in per cent; 'nats'; empty = a number without a unit.
      per_expert: whether there is a value for each expert.
      optional: whether a record may lack it, as those of earlier versions.
      limit: the largest value that it can have, by the number of experts; None = there is none.
      chart: None = it has no chart of lines.
    """

    join: Join
    meaning: str = ""
    unit: str = ""
    per_expert: bool = False
    optional: bool = False
    limit: Callable[[int], float] | None = None
    chart: LineChart | None = None

    def text(self, value: float) -> str:
        """A value as reports show it, without a unit other than per cent."""
        return percent(value) if self.unit == "share" else rounded(value)


ROUTER_STATISTICS: Mapping[str, Statistic] = {
    "load": Statistic(
        Join.MEAN,
        "share of the tokens that chose the expert (first)",
        unit="share",
        per_expert=True,
    ),
    "load_balance_loss": Statistic(Join.MEAN),
    "z_loss": Statistic(Join.MEAN),
    "dropped": Statistic(
        Join.MEAN,
        "share of the tokens without a slot in any expert",
        unit="share",
        chart=LineChart(
            "Tokens dropped",
            "tokens dropped",
            "Share of the tokens that {no_slot}. At the last step {most} at most.",
        ),
    ),
    "entropy": Statistic(
        Join.MEAN,
        "of the router's probabilities, mean over tokens; ln E at most",
        unit="nats",
        limit=math.log,
        chart=LineChart(
            "Router entropy",
            "router entropy",
            "How undecided the router is about a token: 0 = certain; the dotted line, {limit} = "
            "ln(experts), = no preference at all. Lower = the router is surer of its choices.",
        ),
    ),
    "router_logit_max": Statistic(
        Join.LARGEST,
        "largest logit of the router since the last record, over all tokens and experts",
        optional=True,
        chart=LineChart(
            "Largest router logit",
            "largest logit",
            "The largest logit over all tokens and experts. One that keeps growing announces an "
            "instability. At the last step {most} at most.",
            from_zero=False,
        ),
    ),
    "several_experts": Statistic(
        Join.MEAN,
        "share of the tokens with slots in two or more experts; absent if a token has one at most",
        unit="share",
        optional=True,
        chart=LineChart(
            "Tokens with several experts",
            "tokens",
            "Share of the tokens that have a slot in two or more experts.",
        ),
    ),
}

# Those that the records of routers have.
RECORDED_STATISTICS = {name: s for name, s in ROUTER_STATISTICS.items() if s.meaning}
