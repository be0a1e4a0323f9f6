"""Writes metrics as JSON lines, for programs and the report, and as TensorBoard scalars."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clu import metric_writers


class MetricWriter:
    """Appends to `metrics.jsonl` and to TensorBoard event files in a run's folder."""

    def __init__(self, model_dir: str | Path) -> None:
        self.path = Path(model_dir) / "metrics.jsonl"
        if self.path.exists() and not self.path.read_bytes().endswith(b"\n"):
            with self.path.open("a") as file:  # half a line, from a run that was killed
                file.write("\n")
        self._tensorboard = metric_writers.SummaryWriter(str(Path(model_dir) / "tensorboard"))

    def last_seconds(self, step: int) -> float:
        """Training time that earlier lives of the run had spent by `step`; 0 at the start."""
        if not self.path.exists():
            return 0.0
        seconds = 0.0
        for line in self.path.read_text().splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:  # half written when the run was killed
                continue
            if record["step"] <= step:
                seconds = record["seconds"]
        return seconds

    def write(self, kind: str, step: int, seconds: float, values: Mapping[str, Any]) -> None:
        """Appends one record.

        Args:
          kind: 'train' or 'eval'.
          step: optimiser steps done.
          seconds: training time so far, evaluation and checkpoints left out.
          values: numbers, strings, and nested dicts and lists of them; TensorBoard gets numbers.
        """
        record = {"kind": kind, "step": step, "seconds": round(seconds, 3), **values}
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        prefix = "/".join(str(part) for part in (kind, values.get("task")) if part)
        self._tensorboard.write_scalars(step, dict(_scalars(prefix, values)))
        self._tensorboard.flush()

    def close(self) -> None:
        """Writes what is buffered."""
        self._tensorboard.close()


def _scalars(prefix: str, value: Any) -> Iterator[tuple[str, float]]:
    """Numbers in nested dicts and lists, by path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _scalars(f"{prefix}/{key}", item)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _scalars(f"{prefix}/{i}", item)
    elif isinstance(value, int | float):
        yield prefix, float(value)
