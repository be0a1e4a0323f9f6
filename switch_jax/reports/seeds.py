"""Averages the runs that differ in RANDOM_SEED alone: a mean, and how far the seeds spread."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from switch_jax.reports.records import QUALITY
from switch_jax.reports.runs import SEEDS, Run, Series, common_steps

_NOT_COMPARED = ("name", "seed")  # facts of run.json in which seeds of a setting differ


def average_seeds(runs: Iterable[Run]) -> list[Run]:
    """Replaces runs that differ in RANDOM_SEED alone by their mean, in the place of the first.

    They agree in every setting of config.json but MODEL_DIR, and in the facts of run.json; the
    device is one of these. Runs that have ended and runs that go on are not averaged with each
    other, nor are two runs of the same seed, or runs whose settings are not known.
    """
    groups: list[list[Run]] = []
    for run in runs:
        group = next((group for group in groups if _belongs(run, group)), None)
        if group is None:
            groups.append([run])
        else:
            group.append(run)
    return [run for group in groups for run in _average(group)]


def _belongs(run: Run, group: Sequence[Run]) -> bool:
    """Says whether the run is one more seed of this group."""
    known = [other.seed for other in group]  # "none" without a config.json
    return run.seed not in known and _without_seed(run) == _without_seed(group[0])


def _without_seed(run: Run) -> tuple[dict[str, Any], dict[str, Any], bool]:
    settings = {name: value for name, value in run.settings.items() if name not in SEEDS}
    facts = {name: value for name, value in run.facts.items() if name not in _NOT_COMPARED}
    return settings, facts, run.unfinished


def _average(group: Sequence[Run]) -> Sequence[Run]:
    """Returns the mean of the seeds, or the runs as they are where no step is common to several.

    It is a step of the evaluations, if they have a task in common.
    """
    seeds = _at_common_steps(group)
    curves = seeds[0].evals.values() or [seeds[0].train]
    if len(group) == 1 or not all(len(curve.step) for curve in curves):
        return group
    first, name = group[0], common_name([run.name for run in group])
    return [
        replace(
            first,
            name=name,
            folder=", ".join(run.folder for run in group),
            facts=first.facts | {"seed": ", ".join(run.seed for run in group)},
            settings=first.settings | {key: [run.settings[key] for run in group] for key in SEEDS},
            train=_mean([run.train for run in seeds]),
            evals={task: _mean([run.evals[task] for run in seeds]) for task in seeds[0].evals},
            routers={},  # expert 3 of one seed is not expert 3 of another
            left_out=(*(x for run in group for x in run.left_out), *_warnings(name, group, seeds)),
            skipped_steps=sum(run.skipped_steps for run in group),
            seeds=tuple(seeds),
        )
    ]


def _warnings(name: str, group: Sequence[Run], seeds: Sequence[Run]) -> list[str]:
    """Says what is not in the mean of the group, whose records at common steps are `seeds`."""
    last = seeds[0].last_step
    found = [
        f"{seed.name} may have diverged: its last value is not a number, so {name} has none"
        for seed in seeds
        if not all(np.isfinite(curve.get(QUALITY)[-1:]).all() for curve in seed.evals.values())
    ]
    if any(run.last_step > last for run in group):
        found.append(f"{name} is averaged up to step {last:,}, the last that all its seeds have")
    return found


def _at_common_steps(group: Sequence[Run]) -> list[Run]:
    """Returns the runs with those records of training, and of each task, that all of them have."""
    tasks = sorted(set.intersection(*(set(run.evals) for run in group)))
    in_training = common_steps(run.train for run in group)
    in_tasks = {task: common_steps(run.evals[task] for run in group) for task in tasks}
    return [
        replace(
            run,
            train=run.train.at(in_training),
            evals={task: run.evals[task].at(steps) for task, steps in in_tasks.items()},
            routers={
                stack: {layer: router.at(in_training) for layer, router in layers.items()}
                for stack, layers in run.routers.items()
            },
        )
        for run in group
    ]


def _mean(curves: Sequence[Series]) -> Series:
    """Returns the mean of curves at the same steps, with the standard deviation as its spread."""
    names = dict.fromkeys(name for curve in curves for name in curve.values)
    values = {name: np.stack([curve.get(name) for curve in curves]) for name in names}  # [seeds, T]
    return Series(
        step=curves[0].step,
        seconds=np.mean([curve.seconds for curve in curves], axis=0),
        values={name: x.mean(axis=0) for name, x in values.items()},
        spread={name: x.std(axis=0, ddof=1) for name, x in values.items()},
    )


def common_name(names: Sequence[str]) -> str:
    """Returns what the names begin with, "dense" of dense_seed_1 and dense_seed_2, or the first."""
    common = os.path.commonprefix(names)
    if common not in names:
        common = re.sub(r"[\W_]*(seed)?[\W_]*\d*$", "", common, flags=re.IGNORECASE)
    elif all(re.search(r"\d$", name) for name in names):  # of dense_seed_1 and dense_seed_12
        common = re.sub(r"[\W_]+(seed)?[\W_]*\d+$", "", common, flags=re.IGNORECASE)
    return common or names[0]
