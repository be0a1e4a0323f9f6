"""Numbers of a run over its steps, and their means over the seeds of a configuration."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np


@dataclasses.dataclass(frozen=True)
class Series:
    """Numbers of a run, in ascending order of steps."""

    step: np.ndarray  # [T] int
    seconds: np.ndarray  # [T] training time since the run's first step, continued over resumes
    values: dict[str, np.ndarray]  # name -> [T, ...] float; NaN where a record lacks the number

    @classmethod
    def of(cls, by_step: Mapping[int, Mapping[str, Any]], names: Iterable[str]) -> Self:
        """The numbers of these names, by step."""
        steps = sorted(by_step)
        values = {name: np.array([by_step[s].get(name) for s in steps], float) for name in names}
        seconds = values.get("seconds", np.full(len(steps), np.nan))
        return cls(np.array(steps, int), seconds, values)

    def __len__(self) -> int:
        return len(self.step)

    def get(self, name: str) -> np.ndarray:
        """The values [T] of one number; all NaN where the run never logged it."""
        return self.values.get(name, np.full(len(self), np.nan))

    def last(self, name: str) -> float:
        """The last value; NaN where there is none."""
        return float(self.get(name)[-1]) if len(self) else math.nan

    def median(self, name: str) -> float:
        """The median of the finite values; NaN where there are none."""
        values = self.get(name)
        values = values[np.isfinite(values)]
        return float(np.median(values)) if len(values) else math.nan


@dataclasses.dataclass(frozen=True)
class MeanCurve:
    """The mean of some curves over seeds; of one curve itself."""

    step: np.ndarray  # [T], ascending
    seconds: np.ndarray  # [T]
    mean: np.ndarray  # [T], of the curves that go as far
    low: np.ndarray  # [T], see `band`; NaN also where one of several curves has not got as far
    high: np.ndarray  # [T], likewise


def mean_curve(series: Iterable[Series | None], name: str) -> MeanCurve | None:
    """The mean over some runs at the steps of any; between its own steps a curve is straight.

    None where no run has a value.
    """
    found = [s for s in series if s and np.isfinite(s.get(name)).any()]
    if not found:
        return None
    step = np.unique(np.concatenate([s.step for s in found]))

    def at_each_step(s: Series, numbers: np.ndarray) -> np.ndarray:
        return numbers if len(step) == len(s) else np.interp(step, s.step, numbers)

    values = np.stack([at_each_step(s, s.get(name)) for s in found])
    seconds = np.stack([at_each_step(s, s.seconds) for s in found])
    there = np.stack([(step >= s.step[0]) & (step <= s.step[-1]) for s in found])
    mean, mean_seconds = (np.sum(x, axis=0, where=there) / there.sum(0) for x in (values, seconds))
    low, high = (np.where(there.all(0), edge, np.nan) for edge in band(values))
    return MeanCurve(step, mean_seconds, mean, low, high)


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Low and high [...] of values [S, ...] over seeds.

    They are the two values, or one standard deviation either side of the mean for three and more;
    NaN for one.
    """
    if len(values) == 2:
        return values.min(0), values.max(0)
    deviation = values.std(0, ddof=1) if len(values) > 2 else np.full(values.shape[1:], np.nan)
    return values.mean(0) - deviation, values.mean(0) + deviation


def band_caption(numbers: Iterable[int], *, line: str = "Line", band: str = "band") -> str:
    """What `mean_curve` gives of these numbers of seeds, drawn as `line` and `band`; "" for 1."""
    seeds = sorted(set(numbers) - {1})
    if not seeds:
        return ""
    bands = ["from the lower to the higher of 2 seeds"] if 2 in seeds else []
    if seeds[-1] > 2:
        several = " or ".join(str(n) for n in seeds if n > 2)
        bands.append(f"one standard deviation of {several} seeds either side of the mean")
    return f"{line} = mean over seeds; {band} = {', or '.join(bands)}."
