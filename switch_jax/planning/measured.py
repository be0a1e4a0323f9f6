"""What `switch_jax doctor` has measured, for plans that take it in place of tables."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from switch_jax.errors import UserError
from switch_jax.storage import storage_path


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
        found = self.exchanges.get(exchange_name(op, axis))
        if found is None:
            return size / self.bytes_per_second
        return max(size / found.bytes_per_second, found.small_seconds)

    def exchange_ratio(self, op: str, axis: str) -> float:
        """Measured time by that of the model; of all exchanges where this one is not measured."""
        one = self.exchanges.get(exchange_name(op, axis))
        ratios = [
            found.planned_bytes_per_second / found.bytes_per_second
            for found in ([one] if one else self.exchanges.values())
            if found.planned_bytes_per_second
        ]
        return sum(ratios) / len(ratios) if ratios else 1.0


@dataclasses.dataclass(frozen=True)
class Measured:
    """A file of `switch_jax doctor --output`.

    Attributes:
      file: its name.
      device_kind: what JAX calls the devices.
      devices: their number.
      speeds: of each.
      part_ratios: measured by planned time, by part of the model; empty: no step was measured.
      flops_per_second: of a device in that step, by the model's FLOPs; None: no step was measured.
    """

    file: str
    device_kind: str
    devices: int
    speeds: Speeds
    part_ratios: Mapping[str, float]
    flops_per_second: float | None

    def part_ratio(self, part: str) -> float:
        """Measured by planned time; of all parts together where this one was not in the step."""
        return self.part_ratios.get(part, self.part_ratios.get("step", 1.0))

    def __str__(self) -> str:
        ratios = [f"{part} {ratio:.2f}" for part, ratio in self.part_ratios.items()]
        return f"{self.file}: {', '.join(ratios)}" if ratios else self.file


def exchange_name(op: str, axis: str) -> str:
    """As checks of `switch_jax doctor` are called."""
    return f"{op} over {axis}"


def read_measured(file: str) -> Measured:
    """Reads a file of `switch_jax doctor --output`.

    Raises:
      UserError: it cannot be read, or is none.
    """
    try:
        results = json.loads(storage_path(file, "--measured").read_text())
        numbers = {check["name"]: check["numbers"] for check in results["checks"]}
        return _measured(file, results, numbers)
    except OSError as error:
        raise UserError(f"--measured={file} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"--measured={file} is not what `switch_jax doctor --output={file}` writes, or its "
            f"checks of products and memory have failed ({type(error).__name__}: {error})"
        ) from error


def _measured(file: str, results: Mapping[str, Any], numbers: Mapping[str, Any]) -> Measured:
    exchanges = {
        name: Exchange(
            float(of["bytes_per_second"]),
            float(of["small_seconds"]),
            of.get("planned_bytes_per_second"),
        )
        for name, of in numbers.items()
        if " over " in name and of
    }
    ratios: dict[str, float] = {}
    steps = [numbers[name] for name in ("step of the dense model", "step") if numbers.get(name)]
    for step in steps:  # what both have, the second one has last
        planned = step["planned_parts"] | {"step": step["planned_seconds"]}
        seconds = step["parts"] | {"step": step["seconds"]}
        ratios |= {part: seconds[part] / planned[part] for part in seconds if planned.get(part)}
    return Measured(
        file=file,
        device_kind=str(results["device_kind"]),
        devices=int(numbers["devices"]["devices"]),
        speeds=Speeds(
            float(numbers["products"]["flops_per_second"]),
            float(numbers["memory"]["bytes_per_second"]),
            exchanges,
        ),
        part_ratios=ratios,
        flops_per_second=float(steps[-1]["flops_per_second"]) if steps else None,
    )
