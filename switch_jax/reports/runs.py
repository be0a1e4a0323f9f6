"""Reads a run's folder for the report, also while the run is still going on."""

import dataclasses
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from switch_jax.config import by_macro
from switch_jax.config.model import router_names
from switch_jax.reports.records import READING_ERRORS, that_count
from switch_jax.run_folder import (
    OPTIONAL_ROUTER_STATISTICS,
    ROUTER_STATISTICS,
    Record,
    RunFolder,
    RunPhase,
    read_object,
    read_records,
)
from switch_jax.utils.errors import UserError
from switch_jax.utils.units import printable

GENERATED = "generated_"  # before the name of a metric of generated text, as in BEST_METRIC
_LARGEST = 3.5e38  # float32 holds nothing larger, and a chart's axis overflows far above it


@dataclasses.dataclass(frozen=True)
class Series:
    """Numbers of a run, in ascending order of steps."""

    step: np.ndarray  # [T] int
    seconds: np.ndarray  # [T] training time since the run's first step, continued over resumes
    values: dict[str, np.ndarray]  # name -> [T, ...] float; NaN where a record lacks the number

    @classmethod
    def of(cls, by_step: Mapping[int, Mapping[str, Any]], names: Iterable[str]) -> "Series":
        """The numbers of these names, of records by step in ascending order."""
        values = {}
        for name in names:
            numbers = np.array([record.get(name) for record in by_step.values()], float)
            values[name] = np.where(np.abs(numbers) < _LARGEST, numbers, np.nan)
        seconds = values.get("seconds", np.full(len(by_step), np.nan))
        return cls(np.array(list(by_step), int), seconds, values)

    def get(self, name: str) -> np.ndarray:
        """The values [T] of one number; all NaN where the run never logged it."""
        return self.values.get(name, np.full(len(self.step), np.nan))

    def last(self, name: str) -> float:
        """The last value; NaN where there is none."""
        return float(self.get(name)[-1]) if len(self.step) else math.nan


@dataclasses.dataclass(frozen=True)
class Run:
    name: str  # from run.json; the folder's name where there is none
    folder: str  # as the user wrote it
    facts: dict[str, Any]  # run.json; empty where there is none
    settings: dict[str, Any]  # of config.json, by macro; empty where there is none
    train: Series  # the training log
    evals: dict[str, Series]  # by held-out task; "all" is the token-weighted mean over tasks
    # By stack and layer (see `router_names`): load [T, E], dropped [T] and others.
    routers: dict[str, dict[str, Series]] = dataclasses.field(default_factory=dict)
    left_out: tuple[str, ...] = ()  # a line for each file that was not read in full
    skipped_steps: int = 0  # see `Records`
    unfinished: bool = False  # whether it has steps left to do, and has not stopped early

    @property
    def dense(self) -> bool:
        return self.facts.get("num_experts") == 0

    @property
    def sparse(self) -> bool:
        return bool(self.facts.get("num_experts"))

    @property
    def from_scratch(self) -> bool:
        """Whether it learnt from its text alone: from no other run's parameters, nor a teacher."""
        return not (self.facts.get("initial_checkpoint") or self.facts.get("teacher_checkpoint"))

    @property
    def last_step(self) -> int:
        return max(int(s.step[-1]) for s in (self.train, *self.evals.values()) if len(s.step))

    @property
    def seconds(self) -> float:
        """Training wall time so far."""
        return max(float(s.seconds[-1]) for s in (self.train, *self.evals.values()) if len(s.step))


def read_runs(folders: Iterable[str | os.PathLike[str]]) -> tuple[list[Run], list[str]]:
    """The runs in these folders, with distinct names; and a line on each folder that has none."""
    runs, left_out = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except UserError as error:
            left_out.append(str(error))
    names = [run.name for run in runs]
    for i, run in enumerate(runs):
        if names.count(run.name) > 1:
            runs[i] = dataclasses.replace(run, name=f"{run.name} ({run.folder})")
    return runs, left_out


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Reads a run's folder, local or gs://; UserError where it has no record, or is damaged."""
    run_folder = RunFolder.at(folder)
    objects = (run_folder.description, run_folder.config_json, run_folder.status)
    files = [read_records(run_folder.metrics), *map(read_object, objects)]
    records, facts, config, status = (file.value for file in files)
    left_out = tuple(file.left_out for file in files if file.left_out)
    file = run_folder.metrics
    try:
        counted = that_count(records)
        if not counted.train and not counted.evals:
            why = "; ".join(left_out) or "it is no training's MODEL_DIR, or no step was logged yet"
            raise UserError(f"{printable(str(folder))} has no record of a run: {why}")
        ends = [found[-1]["step"] for found in (counted.train, *counted.evals.values()) if found]
        train, evals = _series(counted.train), {t: _series(x) for t, x in counted.evals.items()}
        routers = _routers(counted.train)
        file = run_folder.config_json
        settings = by_macro(config) if config else {}
        file = run_folder.description
        steps_left = max(ends) < facts.get("train_steps", 0)
        return Run(
            name=printable(facts.get("name") or run_folder.path.name),
            folder=printable(str(folder)),
            facts=facts,
            settings=settings,
            train=train,
            evals=evals,
            routers=routers,
            left_out=left_out,
            skipped_steps=counted.skipped_steps,
            unfinished=steps_left and status.get("state") != RunPhase.FINISHED,
        )
    except READING_ERRORS as error:
        raise UserError(f"{printable(str(folder))} has a damaged {file.name}: {error}") from error


def _series(records: Sequence[Record]) -> Series:
    """The numbers in records, each of another step; with those of generated text."""
    flat = {}
    for record in records:
        generated = record.get("generated") or {}
        flat[record["step"]] = record | {GENERATED + name: x for name, x in generated.items()}
    numeric = [name for r in flat.values() for name, x in r.items() if isinstance(x, int | float)]
    return Series.of(flat, dict.fromkeys(numeric))


def _routers(records: Sequence[Record]) -> dict[str, dict[str, Series]]:
    """The statistics of each router, see `Run.routers`; empty for a dense run."""
    by_step = {record["step"]: record["router"] for record in records if record.get("router")}
    found: dict[str, dict[str, Series]] = {}
    for stack, first in next(iter(by_step.values()), {}).items():
        if not first["layers"]:
            continue
        fields = [*ROUTER_STATISTICS, *(f for f in OPTIONAL_ROUTER_STATISTICS if f in first)]
        found[stack] = {}
        for i, name in enumerate(router_names(first["layers"], first["sublayers"])):
            of_layer = {step: {f: r[stack][f][i] for f in fields} for step, r in by_step.items()}
            series = found[stack][name] = Series.of(of_layer, fields)
            if any(x.ndim != 1 + (f == "load") or not x.size for f, x in series.values.items()):
                raise ValueError(f"the statistics of the {stack}'s routers have another shape")
    return found
