"""Runs checks one after the other on all processes together, and says what they found."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from switch_jax.partitioning.mesh import AXES
from switch_jax.runtime.multihost import barrier, is_first, publish, published
from switch_jax.utils.errors import LostHostError, UserError
from switch_jax.utils.terminal import seconds_shown

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
# Seconds between the first process that has done a check and the last.
_MOST_APART = 120


class Failed(Exception):
    """Something is wrong; the text says what, with the numbers."""


class Skipped(Exception):
    """A check does not apply to these devices; the text says why."""


class Finding(NamedTuple):
    """What a check found: PASSED, FAILED or SKIPPED, and a line of text."""

    name: str
    verdict: str
    text: str

    def __str__(self) -> str:
        return f"{self.verdict:7}  {self.name}: {self.text}"


def run_checks(checks: Mapping[str, Callable[[], str]]) -> Iterator[Finding]:
    """Runs the checks in their order, the same ones on all processes together.

    A check returns its numbers in a line of text, or raises Skipped; whatever else it raises is a
    failure, on all processes if it is on one. The next checks still run. If the other processes
    wait in a collective for the one that raised, nothing ends their program: after two minutes that
    process raises LostHostError.
    """
    for number, (name, check) in enumerate(checks.items()):
        try:
            with seconds_shown(f"checking {name}") if is_first() else nullcontext():
                finding = Finding(name, PASSED, check())
        except Skipped as why:
            finding = Finding(name, SKIPPED, str(why))
        except Exception as error:  # whatever a broken machine raises
            kind = "" if isinstance(error, Failed | UserError) else f"{type(error).__name__}: "
            lines = str(error).strip().splitlines() or ["no message"]
            finding = Finding(name, FAILED, f"{kind}{lines[0]:.300}")
        yield _first_failure(number, finding)


def _first_failure(number: int, finding: Finding) -> Finding:
    """Returns the finding of the first process that failed, or else this one.

    Findings go through the coordinator: the devices may be waiting for a process that raised.
    """
    if jax.process_count() == 1:
        return finding
    key = f"doctor/{number}"
    publish(key, json.dumps([finding.verdict, finding.text]))
    try:
        barrier(key, _MOST_APART)
    except jax.errors.JaxRuntimeError as error:
        raise LostHostError(
            f"another process did not end a check within {_MOST_APART} seconds of this one, where "
            f"it has {finding.verdict}: {finding.name}: {finding.text}"
        ) from error
    for index, (verdict, text) in enumerate(map(json.loads, published(key))):
        if verdict == FAILED:
            return Finding(finding.name, FAILED, f"on process {index}: {text}")
    return finding


def check_close(found: Any, expected: Any, tolerance: float, against: str, what: str = "it") -> str:
    """Says how far nested arrays are from the expected ones; raises Failed if too far."""
    apart = difference(found, expected)
    text = f"{what} differs by {apart:.1e} from {against}, {tolerance:.0e} is allowed"
    if not apart <= tolerance:  # it may be NaN
        raise Failed(text)
    return text


def difference(found: Any, expected: Any) -> float:
    """Returns the largest difference of nested arrays, relative to each array's largest number."""
    worst = 0.0
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        a, b = (np.asarray(x, np.float64) for x in (a, b))
        apart = np.abs(a - b).max(initial=0.0) / (np.abs(b).max(initial=0.0) or 1.0)
        worst = float(np.maximum(worst, apart))  # NaN stays
    return worst


def data_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """Makes a mesh of devices of this process, side by side along data."""
    return Mesh(np.array(devices).reshape(-1, 1, 1), AXES, axis_types=(AxisType.Auto,) * 3)


def local_bytes(tree: Any) -> list[bytes]:
    """Returns the bytes of nested arrays on this process's devices, shard by shard."""
    arrays = jax.tree.leaves(tree)
    return [np.asarray(s.data).tobytes() for array in arrays for s in array.addressable_shards]
