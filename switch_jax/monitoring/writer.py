"""Writes metrics as JSON lines, and for TensorBoard and Weights & Biases."""

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from clu import metric_writers
from etils import epath

from switch_jax.monitoring.wandb_run import start_wandb
from switch_jax.run_folder import MetricsFolder, Record, RecordKind, parse_records
from switch_jax.storage import (
    Spool,
    appended_file,
    explain_state_errors,
    explain_write_errors,
    read_appended,
)
from switch_jax.utils.errors import storage_error
from switch_jax.utils.tensorflow_setup import tf


class MetricWriter:
    """Appends to `metrics.jsonl` and TensorBoard event files in a folder, and to W&B."""

    def __init__(
        self,
        folder: MetricsFolder,
        wandb_project: str | None = None,
        config_text: str = "",
        active: bool = True,
    ) -> None:
        """Opens the files and W&B; raises UserError if that fails.

        `folder` is the run's, or that of its evaluations. If `wandb_project` names a project of
        W&B, it gets the numbers too, beside `config_text`. Processes that are not `active` only
        read.
        """
        self._folder, self._path = folder, folder.metrics
        self._active = active
        self._reported = not active
        if not active:
            return
        with explain_write_errors(self._path):
            self._file = appended_file(self._path)
            self._file.end_line()
        with _tensorboard_errors(folder.tensorboard):
            folder.tensorboard.mkdir(exist_ok=True)
            self._spool = Spool(folder.tensorboard)
            self._tensorboard = metric_writers.SummaryWriter(str(self._spool.local))
        self._wandb = start_wandb(folder, wandb_project, config_text) if wandb_project else None

    def last_record(self, kind: RecordKind, step: int) -> Record | None:
        """Finds the newest record of a kind, of this step or an earlier one."""
        found = [r for r in self._records() if r["kind"] == kind and r["step"] <= step]
        return found[-1] if found else None

    def find(self, values: Mapping[str, Any]) -> Record | None:
        """Finds the newest record that has these values."""
        found = [r for r in self._records() if all(r.get(k) == v for k, v in values.items())]
        return found[-1] if found else None

    def write(self, kind: RecordKind, step: int, seconds: float, values: Mapping[str, Any]) -> None:
        """Appends one record (docs/run_folder.md); UserError if the disk is full, or gone.

        `step` counts optimiser steps done, and `seconds` is training time without evaluation and
        checkpoints. `values` are numbers, strings, and nested dicts and lists of them. TensorBoard
        and W&B get a scalar for each number, and TensorBoard a histogram for each list in a list,
        as of the loads of many experts. NaN and infinities, which JSON does not have, become null.
        """
        if not self._active:
            return
        record = {"kind": kind, "step": step, "seconds": round(seconds, 3), **values}
        finite = json.loads(json.dumps(record), parse_constant=lambda _: None)
        with explain_write_errors(self._path):
            self._file.append(f"{json.dumps(finite)}\n".encode())
        prefix = "/".join(str(part) for part in (kind, values.get("task")) if part)
        numbers = dict(_numbers(prefix, values))
        scalars = {name: x for name, x in numbers.items() if not isinstance(x, list)}
        histograms = {name: np.array(x) for name, x in numbers.items() if isinstance(x, list)}
        with _tensorboard_errors(self._folder.tensorboard):
            self._tensorboard.write_scalars(step, scalars)
            self._tensorboard.write_histograms(step, histograms)
            self._tensorboard.flush()
            self._spool.send()
        if self._wandb is not None:
            self._wandb.log({**scalars, "step": step})

    def close(self) -> None:
        """Writes what is buffered; raises UserError if it cannot be written."""
        if not self._active:
            return
        with _tensorboard_errors(self._folder.tensorboard):
            self._tensorboard.close()
            self._spool.close()
        if self._wandb is not None:
            self._wandb.finish()

    def _records(self) -> list[Record]:
        """Reads the valid records so far; the first call prints what is left out."""
        content = b""
        with explain_state_errors(self._path), contextlib.suppress(FileNotFoundError):
            content = read_appended(self._path)
        found = parse_records(self._path, content)
        if found.left_out and not self._reported:
            self._reported = True
            print(found.left_out, file=sys.stderr)
        return found.value


@contextlib.contextmanager
def _tensorboard_errors(folder: epath.Path) -> Iterator[None]:
    """Turns an error of the storage or of TensorFlow in the block into a UserError."""
    with explain_write_errors(folder):
        try:
            yield
        except tf.errors.OpError as error:  # also for a full disk
            reason = error.message.splitlines()[0].rpartition("; ")[2]
            raise storage_error(f"{folder} cannot be written: {reason}", error) from error


def _numbers(path: str, value: Any, in_list: bool = False) -> Iterator[tuple[str, Any]]:
    """Yields path and value of each number in dicts and lists; a list in a list is one value."""
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
