"""How far two results of the same are from each other."""

from typing import Any

import jax
import numpy as np

from switch_jax.doctor.checks import Finding, Verdict


def difference(found: Any, expected: Any) -> float:
    """The largest difference of nested arrays, relative to the largest number of each array.

    NaN where one has a NaN that the other has not.
    """
    worst = 0.0
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        a, b = (np.asarray(x, np.float64) for x in (a, b))
        largest = np.abs(b).max(initial=0.0)
        if np.isnan(a).any() or np.isnan(b).any():
            return float("nan")
        apart = np.abs(np.subtract(a, b, where=a != b, out=np.zeros_like(a)))
        worst = max(worst, float(apart.max(initial=0.0)) / (largest or 1.0))
    return worst


def judged(name: str, worst: float, tolerance: float, *, against: str, advice: str) -> Finding:
    """A finding of a difference: failed where it is above the tolerance, or NaN."""
    verdict = Verdict.OK if worst <= tolerance else Verdict.FAILED
    text = f"differs by {worst:.1e} from {against}, {tolerance:.0e} is allowed"
    return Finding(name, verdict, text, {"difference": worst, "tolerance": tolerance}, advice)
