"""What `switch_jax doctor` has measured, for plans that take it in place of tables."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from switch_jax.errors import UserError
from switch_jax.storage import explain_read_errors, storage_path

EXCHANGES = "exchanges"  # the part of all collectives in a step
ALL_PARTS = "all parts"  # of the model together, without exchanges


class Exchange(NamedTuple):
    """A kind of exchange, each device at work.

    Attributes:
      bytes_per_second: of results on a device, in a large one.
      small_seconds: of one of 64 KiB.
      planned_bytes_per_second: in the model of `collective_costs.seconds_of`; None: it has none for
        such devices.
    """

    bytes_per_second: float
    small_seconds: float
    planned_bytes_per_second: float | None = None

    @property
    def ratio(self) -> float:
        """Measured by planned time; 1 where nothing is planned."""
        return (self.planned_bytes_per_second or self.bytes_per_second) / self.bytes_per_second


@dataclasses.dataclass(frozen=True)
class Speeds:
    """What each of some devices does, all at once.

    Attributes:
      flops_per_second: of matrix products.
      bytes_per_second: read from memory and written to it.
      exchanges: by op and axis, as in "all-to-all over expert".
    """

    flops_per_second: float
    bytes_per_second: float
    exchanges: Mapping[str, Exchange]

    def exchange_seconds(self, op: str, size: float, axis: str) -> float:
        """Of an exchange of `size` bytes, see `Collective.bytes`; one not measured: of memory."""
        found = self._exchange(op, axis)
        if found is None:
            return size / self.bytes_per_second
        return max(size / found.bytes_per_second, found.small_seconds)

    def exchange_ratio(self, op: str, axis: str) -> float:
        """Measured time by that of the model; of all exchanges where this one is not measured."""
        one = self._exchange(op, axis)
        ratios = [found.ratio for found in ([one] if one else self.exchanges.values())]
        return sum(ratios) / len(ratios) if ratios else 1.0

    def _exchange(self, op: str, axis: str) -> Exchange | None:
        """A reduce-scatter sends as much as an all-gather, which is measured."""
        op = "all-gather" if op == "reduce-scatter" else op
        return self.exchanges.get(exchange_name(op, axis))


@dataclasses.dataclass(frozen=True)
class Measured:
    """A file of `switch_jax doctor --output`.

    Attributes:
      file: its name.
      device_kind: what JAX calls the devices.
      devices: their number.
      speeds: of each.
      part_ratios: measured by planned time in a step, by part of the model, and of all parts
        together as `ALL_PARTS`; empty where nothing was planned.
      flops_per_second: of a device in that step, by the model's FLOPs.
    """

    file: str
    device_kind: str
    devices: int
    speeds: Speeds
    part_ratios: Mapping[str, float]
    flops_per_second: float

    def part_ratio(self, part: str) -> float:
        """Measured by planned time; of all parts together where this one was not in the step."""
        return self.part_ratios.get(part, self.part_ratios.get(ALL_PARTS, 1.0))

    def as_json(self) -> dict[str, Any]:
        """The file and its ratios, which a plan was corrected by."""
        exchanges = {name: found.ratio for name, found in self.speeds.exchanges.items()}
        return {
            "file": self.file,
            "part_ratios": dict(self.part_ratios),
            "exchange_ratios": exchanges,
        }


def exchange_name(op: str, axis: str) -> str:
    """As checks of `switch_jax doctor` are called."""
    return f"{op} over {axis}"


def read_measured(file: str) -> Measured:
    """Reads a file of `switch_jax doctor --output`.

    Raises:
      UserError: it cannot be read, or is none.
    """
    with explain_read_errors(f"--measured={file}"):
        text = storage_path(file, "--measured").read_bytes()
    try:
        results = json.loads(text)
        numbers = {check["name"]: check["numbers"] for check in results["checks"]}
        return _measured(file, results, numbers)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"it has no {error}" if isinstance(error, KeyError) else error
        raise UserError(
            f"--measured={file} is not what `switch_jax doctor --output={file}` writes, or its "
            f"checks of products and memory have failed: {problem}"
        ) from error


def _part_ratios(step: Mapping[str, Any]) -> dict[str, float]:
    """Of parts that are a hundredth of the plan at least: smaller ones say little of others."""
    measured, planned = step["parts"], step["planned_parts"]
    if not planned:
        return {}
    if not measured:  # the trace named no operations
        return {ALL_PARTS: step["seconds"] / step["planned_seconds"]}
    least = 0.01 * step["planned_seconds"]
    of_parts = [{p: s for p, s in of.items() if p != EXCHANGES} for of in (measured, planned)]
    both = measured | {ALL_PARTS: sum(of_parts[0].values())}
    planned = planned | {ALL_PARTS: sum(of_parts[1].values())}
    return {part: both[part] / planned[part] for part in both if planned.get(part, 0.0) > least}


def _positive(value: Any) -> float:
    if not float(value) > 0:
        raise ValueError(f"{value} is no speed")
    return float(value)


def _measured(file: str, results: Mapping[str, Any], numbers: Mapping[str, Any]) -> Measured:
    kind, devices = str(results["device_kind"]), int(numbers["devices"]["devices"])
    exchanges = {
        name: Exchange(
            _positive(of["bytes_per_second"]),
            _positive(of["small_seconds"]),
            of.get("planned_bytes_per_second"),
        )
        for name, of in numbers.items()
        if " over " in name and of
    }
    speeds = Speeds(
        _positive(numbers["products"]["flops_per_second"]),
        _positive(numbers["memory"]["bytes_per_second"]),
        exchanges,
    )
    steps = [numbers[name] for name in ("step of the dense model", "step") if numbers.get(name)]
    if not steps:
        raise UserError(
            f"--measured={file} has no step that was measured: run `switch_jax doctor "
            f"--output={file}` without --quick, and mend what fails"
        )
    ratios: dict[str, float] = {}
    for step in steps:  # of what both have, the second one's counts
        ratios |= _part_ratios(step)
    flops = _positive(steps[-1]["flops_per_second"])
    return Measured(file, kind, devices, speeds, ratios, flops)
