"""How far two results of the same are from each other."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from switch_jax.doctor.checks import Finding, Verdict
from switch_jax.partitioning.mesh import AXES


def mesh_of(devices: Sequence[jax.Device]) -> Mesh:
    """These devices side by side along data, as of one process: no other has to take part."""
    shape = (len(devices), 1, 1)
    return Mesh(np.array(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * 3)


def parts_here(tree: Any) -> list[np.ndarray]:
    """What the devices of this process hold of nested arrays, a part after the other."""
    return [
        np.asarray(shard.data)
        for array in jax.tree.leaves(tree)
        for shard in array.addressable_shards
    ]


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


def judged(worst: float, tolerance: float, *, against: str, advice: str) -> Finding:
    """A finding of a difference: failed where it is above the tolerance, or NaN."""
    verdict = Verdict.OK if worst <= tolerance else Verdict.FAILED
    text = f"differs by {worst:.1e} from {against}, {tolerance:.0e} is allowed"
    number = worst if math.isfinite(worst) else None  # JSON has no others
    return Finding(verdict, text, {"difference": number, "tolerance": tolerance}, advice)
