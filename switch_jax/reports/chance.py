"""How much of one run's lead over another is chance: of other seeds, or of single evaluations."""

import math

import numpy as np
from scipy.special import stdtrit

from switch_jax.reports.records import QUALITY
from switch_jax.reports.runs import Series

_FEWEST = 3  # deviations from which a scatter is estimated
_CONFIDENCE = 0.95


def smallest_lead(values: np.ndarray, others: np.ndarray) -> float:
    """Returns the smallest difference of two means that is more than chance, NaN for one seed each.

    `values` [n] and `others` [m] are those of the seeds. This is half of the confidence interval of
    Student's t-test for the difference of their means, with one standard deviation for both.
    """
    free = len(values) + len(others) - 2
    if not free:
        return math.nan
    squares = sum(float(((x - x.mean()) ** 2).sum()) for x in (values, others))
    error = math.sqrt(squares / free * (1 / len(values) + 1 / len(others)))
    return float(stdtrit(free, (1 + _CONFIDENCE) / 2)) * error


def scatter(curve: Series) -> float:
    """Estimates how far evaluations scatter about a smooth curve, nats; 0 for too few of them.

    This is the standard deviation of how far an evaluation lies above the straight line through
    its two neighbours, over the second half of the steps.
    """
    known = curve.known(QUALITY)
    step, value = known.step, known.get(QUALITY)
    i = np.arange(1, len(step) - 1)
    i = i[step[i] >= step[-1:] / 2]
    if len(i) < _FEWEST:
        return 0.0
    part = (step[i] - step[i - 1]) / (step[i + 1] - step[i - 1])
    above = value[i] - (value[i - 1] + part * (value[i + 1] - value[i - 1]))
    return float(above.std(ddof=1))
