"""Reads a run's folder for the report, also while the run is still going on."""

import collections
import dataclasses
import functools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from switch_jax.config import by_macro
from switch_jax.config.model import router_names
from switch_jax.metrics import RECORDED_STATISTICS
from switch_jax.reports.records import kept_records
from switch_jax.run_folder import (
    DESCRIPTION,
    NUMBERS,
    STATUS,
    Record,
    RunFolder,
    RunPhase,
    nothing_read,
    read_object,
    read_records,
)
from switch_jax.storage import exists
from switch_jax.utils.errors import UserError
from switch_jax.utils.units import as_text, printable

GENERATED = "generated_"  # before the name of a metric of generated text, as in BEST_METRIC
SEEDS = ("RANDOM_SEED", "DataConfig.random_seed")  # the settings that RANDOM_SEED sets
_LARGEST = 3.5e38  # float32 holds nothing larger, and a chart's axis overflows far above it


@dataclasses.dataclass(frozen=True)
class Series:
    """Numbers of a run, in ascending order of steps."""

    step: np.ndarray  # [T] int
    seconds: np.ndarray  # [T] training time since the run's first step, continued over resumes
    values: dict[str, np.ndarray]  # name -> [T, ...] float; NaN where a record lacks the number
    # Of the mean of several seeds their standard deviation: name -> [T].
    spread: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @classmethod
    def collect(cls, by_step: Mapping[int, Mapping[str, Any]], names: Iterable[str]) -> "Series":
        """Collects the numbers of these names from records by step, in ascending order."""
        values = {}
        for name in names:
            numbers = np.array([record.get(name) for record in by_step.values()], float)
            values[name] = np.where(np.abs(numbers) < _LARGEST, numbers, np.nan)
        seconds = values.get("seconds", np.full(len(by_step), np.nan))
        return cls(np.array(list(by_step), int), seconds, values)

    def get(self, name: str) -> np.ndarray:
        """Returns the values [T] of one number, NaN if the run never logged it."""
        return self.values.get(name, np.full(len(self.step), np.nan))

    def last(self, name: str) -> float:
        """Returns the last value, NaN if there is none."""
        return float(self.get(name)[-1]) if len(self.step) else math.nan

    def known(self, name: str) -> "Series":
        """Returns the part after step 0 where one number is known."""
        return self.at(self.step[np.isfinite(self.get(name)) & (self.step > 0)])

    def at(self, steps: np.ndarray) -> "Series":
        """Returns the numbers at these steps alone, of those that it has."""
        there = np.isin(self.step, steps)
        values, spread = (
            {name: x[there] for name, x in numbers.items()}
            for numbers in (self.values, self.spread)
        )
        return Series(self.step[there], self.seconds[there], values, spread)


def common_steps(curves: Iterable[Series]) -> np.ndarray:
    """Returns the steps that all these curves have, in ascending order."""
    return functools.reduce(np.intersect1d, [curve.step for curve in curves])


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run's folder says: its facts, settings, records and what is missing."""

    name: str  # from run.json; the folder's name where there is none
    folder: str  # as the user wrote it
    facts: dict[str, Any]  # run.json; empty where there is none
    settings: dict[str, Any]  # of config.json, by macro; empty where there is none
    train: Series  # the training log
    evals: dict[str, Series]  # by held-out task; "all" is the token-weighted mean over tasks
    # By stack and layer (see `router_names`): of `metrics.RECORDED_STATISTICS` those that it has.
    routers: dict[str, dict[str, Series]] = dataclasses.field(default_factory=dict)
    left_out: tuple[str, ...] = ()  # a line for each file that was not read in full
    skipped_steps: int = 0  # see `Records`
    unfinished: bool = False  # whether it has steps left to do, and has not stopped early
    # The runs of which this is the mean (`seeds.average_seeds`), at the steps that all have.
    seeds: tuple["Run", ...] = ()

    @property
    def each_seed(self) -> tuple["Run", ...]:
        """The runs of which it is the mean, or itself alone."""
        return self.seeds or (self,)

    @property
    def seed(self) -> str:
        """Its seeds: one number, as a rule."""
        return " and ".join(dict.fromkeys(as_text(self.settings.get(key)) for key in SEEDS))

    @property
    def dense(self) -> bool:
        return self.facts.get("num_experts") == 0

    @property
    def sparse(self) -> bool:
        return bool(self.facts.get("num_experts"))

    @property
    def from_scratch(self) -> bool:
        """Says whether it began with random parameters and learns from no teacher."""
        return not (self.facts.get("initial_checkpoint") or self.facts.get("teacher_checkpoint"))

    def fact(self, key: str) -> str:
        """Returns a fact of run.json as text."""
        return as_text(self.facts[key]) if key in self.facts else "not stated"

    @property
    def last_step(self) -> int:
        return max(int(s.step[-1]) for s in (self.train, *self.evals.values()) if len(s.step))

    @property
    def seconds(self) -> float:
        """The training time so far."""
        return max(float(s.seconds[-1]) for s in (self.train, *self.evals.values()) if len(s.step))


class NoFolderError(UserError):
    """There is no folder of that name."""


def read_runs(folders: Iterable[str | os.PathLike[str]]) -> tuple[list[Run], list[UserError]]:
    """Reads the runs in these folders, and returns an error for each folder without one."""
    runs: list[Run] = []
    errors: list[UserError] = []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except UserError as error:
            errors.append(error)
    return runs, errors


def with_distinct_names(runs: Sequence[Run]) -> list[Run]:
    """Adds the folder to each name that several runs have."""
    names = [run.name for run in runs]
    return [
        dataclasses.replace(run, name=f"{run.name} ({run.folder})")
        if names.count(run.name) > 1
        else run
        for run in runs
    ]


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Reads a run's folder, local or gs://.

    Raises NoFolderError, or UserError if it has no record of a run, or a damaged config.json.
    """
    run_folder, shown = RunFolder.at(folder), printable(str(folder))
    files = [
        read_records(run_folder.metrics),
        read_object(run_folder.description, DESCRIPTION),
        read_object(run_folder.config_json),
        read_object(run_folder.status, STATUS),
    ]
    records, facts, config, status = (file.value for file in files)
    left_out = [file.left_out for file in files if file.left_out]
    counted = kept_records(records)
    if not counted.train and not counted.evals:
        if not left_out and not exists(run_folder.path):
            raise NoFolderError(f"there is no folder {shown}")
        why = "; ".join(left_out) or "it is no training's MODEL_DIR, or no step was logged yet"
        raise nothing_read(f"{shown} has no record of a run: {why}", files)
    routers, others = _routers(counted.train)
    if others:
        what = f"the routers of {others} of {len(counted.train)} records are of another shape"
        left_out.append(f"{run_folder.metrics}: {what}, and left out")
    ends = [found[-1]["step"] for found in (counted.train, *counted.evals.values()) if found]
    steps_left = max(ends) < facts.get("train_steps", 0)
    return Run(
        name=printable(facts.get("name") or run_folder.path.name),
        folder=shown,
        facts=facts,
        settings=_settings(config, run_folder),
        train=_series(counted.train),
        evals={task: _series(found) for task, found in counted.evals.items()},
        routers=routers,
        left_out=tuple(left_out),
        skipped_steps=counted.skipped_steps,
        unfinished=steps_left and status.get("state") != RunPhase.FINISHED,
    )


def _settings(config: dict[str, Any], folder: RunFolder) -> dict[str, Any]:
    """Returns the settings in config.json by macro, empty if there are none."""
    try:
        return by_macro(config) if config else {}
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        file = folder.config_json
        raise UserError(f"{printable(str(folder))} has a damaged {file.name}: {error}") from error


def _series(records: Sequence[Record]) -> Series:
    """Collects the numbers in records of different steps, those of generated text included."""
    by_step = {}
    for record in records:
        numbers = {name: record[name] for name in NUMBERS if name in record}
        generated = record.get("generated", {}).items()
        by_step[record["step"]] = numbers | {GENERATED + name: x for name, x in generated}
    return Series.collect(by_step, dict.fromkeys(name for r in by_step.values() for name in r))


def _routers(records: Sequence[Record]) -> tuple[dict[str, dict[str, Series]], int]:
    """Collects `Run.routers`, and counts the records with other routers than most have."""
    by_step = {record["step"]: record["router"] for record in records if record.get("router")}
    if not by_step:
        return {}, 0
    shapes = {step: _shape(router) for step, router in by_step.items()}
    ((shape, count),) = collections.Counter(shapes.values()).most_common(1)
    same = {step: router for step, router in by_step.items() if shapes[step] == shape}
    found: dict[str, dict[str, Series]] = {}
    for stack, layers, sublayers, _ in shape:
        fields = list(RECORDED_STATISTICS)
        for i, name in enumerate(router_names(layers, sublayers)):
            of_layer = {
                step: {field: x[i] for field in fields if (x := router[stack].get(field))}
                for step, router in same.items()
            }
            there = [field for field in fields if any(field in x for x in of_layer.values())]
            found.setdefault(stack, {})[name] = Series.collect(of_layer, there)
    return found, len(by_step) - count


def _shape(router: Record) -> tuple[tuple[str, tuple[int, ...], tuple[str, ...], int], ...]:
    """Returns what two records of the same routers share: stacks, layers, sublayers, experts."""
    return tuple(
        (stack, tuple(r["layers"]), tuple(r["sublayers"]), len(r["load"][0]) if r["load"] else 0)
        for stack, r in router.items()
    )
