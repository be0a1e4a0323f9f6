"""Writes metrics as JSON lines, for programs and the report, and for TensorBoard."""

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from clu import metric_writers

from switch_jax.data.tensorflow_setup import tf
from switch_jax.errors import storage_error
from switch_jax.metrics.wandb_run import start_wandb
from switch_jax.paths import writing
from switch_jax.run_folder import parsed_record
from switch_jax.schema import Misfit


class MetricWriter:
    """Appends to `metrics.jsonl` and to TensorBoard event files in a run's folder, and to W&B."""

    def __init__(
        self,
        model_dir: str | Path,
        wandb_project: str | None = None,
        config_text: str = "",
        active: bool = True,
    ) -> None:
        """Opens what is written to.

        Args:
          model_dir: the run's folder.
          wandb_project: Weights & Biases project that gets the numbers too; None: none does.
          config_text: the config that W&B shows with the run.
          active: False on the processes that only read: theirs write nothing.

        Raises:
          UserError: the folder cannot be written, or W&B is missing or cannot be started.
        """
        self.path = Path(model_dir) / "metrics.jsonl"
        self._active = active
        self._said_damaged = not active
        if not active:
            return
        if self.path.exists() and not self._read().endswith(b"\n"):
            self._append("\n")  # after half a line, from a run that was killed
        folder = Path(model_dir) / "tensorboard"
        with writing(folder):  # TensorFlow's error for a file there does not name it
            folder.mkdir(exist_ok=True)
        with self._explained():
            self._tensorboard = metric_writers.SummaryWriter(str(folder))
        self._wandb = (
            start_wandb(Path(model_dir), wandb_project, config_text) if wandb_project else None
        )

    def last_record(self, kind: str, step: int) -> dict[str, Any] | None:
        """The newest record of a kind that was written at `step` or before; None: there is none."""
        found = [r for r in self._records() if r["kind"] == kind and r["step"] <= step]
        return found[-1] if found else None

    def find(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """The newest record that has these values; None: there is none."""
        found = [r for r in self._records() if all(r.get(k) == v for k, v in values.items())]
        return found[-1] if found else None

    def write(self, kind: str, step: int, seconds: float, values: Mapping[str, Any]) -> None:
        """Appends one record.

        Args:
          kind: 'train', 'eval', 'skipped' for a bad step, 'rollback' for a return to a checkpoint.
          step: optimiser steps done.
          seconds: training time so far, evaluation and checkpoints left out.
          values: numbers, strings, and nested dicts and lists of them. TensorBoard and W&B get a
            scalar for each number, TensorBoard a histogram for each list in a list: the loads of
            thousands of experts are not to be read one by one. NaN and infinities are null in
            metrics.jsonl: JSON has no such numbers.

        Raises:
          UserError: the disk is full, or gone.
        """
        if not self._active:
            return
        record = {"kind": kind, "step": step, "seconds": round(seconds, 3), **values}
        self._append(json.dumps(_finite(record), allow_nan=False) + "\n")
        prefix = "/".join(str(part) for part in (kind, values.get("task")) if part)
        numbers = dict(_numbers(prefix, values))
        scalars = {name: x for name, x in numbers.items() if not isinstance(x, list)}
        histograms = {name: np.array(x) for name, x in numbers.items() if isinstance(x, list)}
        with self._explained():
            self._tensorboard.write_scalars(step, scalars)
            self._tensorboard.write_histograms(step, histograms)
            self._tensorboard.flush()
        if self._wandb is not None:
            self._wandb.log({**scalars, "step": step})

    def close(self) -> None:
        """Writes what is buffered; raises UserError if it cannot be written."""
        if not self._active:
            return
        with self._explained():
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:  # what a full disk is to TensorFlow
            reason = error.message.splitlines()[0].rpartition("; ")[2]
            folder = self.path.with_name("tensorboard")
            raise storage_error(
                f"metrics cannot be written to {folder}: {reason}", error
            ) from error

    def _append(self, text: str) -> None:
        try:
            with self.path.open("a") as file:
                file.write(text)
        except OSError as error:
            raise storage_error(
                f"metrics cannot be written to {self.path}: {error.strerror}", error
            ) from error

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise storage_error(f"{self.path} cannot be read: {error.strerror}", error) from error

    def _records(self) -> list[dict[str, Any]]:
        """The records so far, in the order in which they were written; says what is none."""
        lines = self._read().splitlines() if self.path.exists() else []
        found = [(number, _record(line)) for number, line in enumerate(lines, 1) if line.strip()]
        damaged = [number for number, record in found if record is None]
        if damaged and not self._said_damaged:
            self._said_damaged = True
            print(
                f"{self.path}: {len(damaged)} of {len(lines)} lines are no records, the first is "
                f"line {damaged[0]}; they are left as they are, and left out",
                file=sys.stderr,
            )
        return [record for _, record in found if record is not None]


def _record(line: bytes) -> dict[str, Any] | None:
    """A line of metrics.jsonl; None: half written when the run was killed, or changed by hand."""
    try:
        return parsed_record(line)
    except Misfit:
        return None


def _finite(value: Any) -> Any:
    """The same with None for numbers that are not finite, in nested dicts and lists too."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(path: str, value: Any, in_list: bool = False) -> Iterator[tuple[str, Any]]:
    """Numbers in nested dicts and lists by path, and lists in lists whole."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(f"{path}/{key}", item)
    elif isinstance(value, list) and not in_list:
        for i, item in enumerate(value):
            yield from _numbers(f"{path}/{i}", item, in_list=True)
    elif isinstance(value, list):
        yield path, value
    elif isinstance(value, int | float):
        yield path, float(value)
