"""What `switch_jax doctor` has measured, for plans that take it in place of tables."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from switch_jax.errors import UserError
from switch_jax.storage import storage_path


@dataclasses.dataclass(frozen=True)
class Speeds:
    """What each of some devices does, all at once.

    Attributes:
      flops_per_second: of matrix products.
      bytes_per_second: read from memory and written to it.
      exchanges: bytes a second of an exchange, by its op and axis, as in "all-to-all over expert".
      planned_exchanges: those of the model of `collective_costs.seconds_of`; empty where it has
        none for such devices.
    """

    flops_per_second: float
    bytes_per_second: float
    exchanges: Mapping[str, float]
    planned_exchanges: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def exchange_ratio(self, op: str, axis: str) -> float:
        """Measured time by that of the model; of all exchanges where this one is not measured."""
        name = exchange_name(op, axis)
        names = [name] if name in self.exchanges else list(self.exchanges)
        ratios = [
            self.planned_exchanges[name] / self.exchanges[name]
            for name in names
            if name in self.planned_exchanges
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
    exchanges = {name: of for name, of in numbers.items() if " over " in name and of}
    step = numbers.get("step") or {}
    planned = step.get("planned_parts") or {}
    ratios = {
        part: float(seconds) / planned[part]
        for part, seconds in (step.get("parts") or {}).items()
        if planned.get(part)
    }
    if step.get("planned_seconds"):
        ratios["step"] = float(step["seconds"]) / step["planned_seconds"]
    return Measured(
        file=file,
        device_kind=str(results["device_kind"]),
        devices=int(numbers["devices"]["devices"]),
        speeds=Speeds(
            float(numbers["products"]["flops_per_second"]),
            float(numbers["memory"]["bytes_per_second"]),
            {name: float(of["bytes_per_second"]) for name, of in exchanges.items()},
            {
                name: float(of["planned_bytes_per_second"])
                for name, of in exchanges.items()
                if of.get("planned_bytes_per_second")
            },
        ),
        part_ratios=ratios,
        flops_per_second=float(step["flops_per_second"]) if step else None,
    )
