"""Scores on downstream tasks, of generated text."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from switch_jax.reports.records import QUALITY
from switch_jax.reports.series import Series
from switch_jax.run_folder import Record, RecordKind

# Metrics of T5's tasks that count from 0 to 100.
_PER_CENT = ("accuracy", "average", "bleu", "em", "exact_match", "f1", "sequence_accuracy")
_IN_RUN = "greedy, in the run"  # the decoding of a run with INFER_EVAL
_AVERAGE = "average"  # what `switch_jax eval` calls the score of a mixture


class Setting(NamedTuple):
    """What was evaluated, and how; scores in different settings cannot be compared."""

    task: str  # or the mixture whose average it is
    split: str
    decoding: str  # how, in words
    max_examples: int | None  # of each task; None: all, or in a run, with EVAL_STEPS, not known

    def title(self, others: Sequence["Setting"]) -> str:
        """The task, with what distinguishes the setting from others of that task."""
        of_task = [setting for setting in others if setting.task == self.task]
        number = f"at most {self.max_examples} examples" if self.max_examples else "all examples"
        details = {"split": self.split, "decoding": self.decoding, "max_examples": number}
        if self.decoding == _IN_RUN:
            del details["max_examples"]
        differing = [
            text for name, text in details.items() if len({getattr(s, name) for s in of_task}) > 1
        ]
        return f"{self.task} ({'; '.join(differing)})" if differing else self.task


@dataclasses.dataclass(frozen=True)
class Scores(Series):
    """The scores of a run in one setting by checkpoint; the task's first metric comes first."""

    # By metric, see `TaskEvaluator.majority_baseline`; empty in records of earlier versions.
    majority_baseline: Mapping[str, float | None] = dataclasses.field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The task's first metric."""
        return next(iter(self.values))

    @property
    def best(self) -> int:
        """The index of the checkpoint with the highest first metric; of equal ones the earliest."""
        return int(np.argmax(np.nan_to_num(self.values[self.metric], nan=-np.inf)))

    @property
    def best_score(self) -> float:
        """The first metric at that checkpoint; NaN where no checkpoint has it."""
        return float(self.values[self.metric][self.best])


@dataclasses.dataclass(frozen=True)
class Measure:
    """A metric of a setting, as the report shows it."""

    setting: Setting
    metric: str
    title: str  # of the setting
    first: bool  # whether it is the first metric of its task
    unit: str  # " [%]": from 0 to 100, as T5's are, by the name and a value above 1; or ""


def measures(scores: Sequence[Mapping[Setting, Scores]]) -> list[Measure]:
    """All metrics of some runs: averages over mixtures first, then in the order of the files."""
    metrics: dict[Setting, dict[str, bool]] = {}  # and whether some value is above 1
    for setting, found in (item for of_run in scores for item in of_run.items()):
        above = metrics.setdefault(setting, {})
        for metric, values in found.values.items():
            above[metric] = above.get(metric, False) or bool((values > 1).any())
    return [
        Measure(
            setting,
            metric,
            setting.title(list(metrics)),
            first=metric == next(iter(above)),
            unit=" [%]" if is_above_1 and _is_per_cent(metric) else "",
        )
        for setting, above in sorted(metrics.items(), key=lambda item: [*item[1]][0] != _AVERAGE)
        for metric, is_above_1 in above.items()
    ]


def _is_per_cent(metric: str) -> bool:
    return metric in _PER_CENT or metric.startswith("rouge")


def scores(
    evals: Mapping[str, Sequence[Record]], evaluation: Sequence[Record]
) -> dict[Setting, Scores]:
    """The scores of a run: of its own evaluations, and of what `switch_jax eval` wrote.

    Of records of the same checkpoint and setting the newest counts.
    """
    found: dict[Setting, dict[int, dict[str, float]]] = {}
    baselines: dict[Setting, Mapping[str, float | None]] = {}

    def add(setting: Setting, record: Record, metrics: dict[str, float]) -> None:
        found.setdefault(setting, {})[record["step"]] = metrics
        baselines[setting] = record.get("majority_baseline", {})

    for task, records in evals.items():
        for record in records:
            if metrics := record.get("generated"):
                add(Setting(task, "validation", _IN_RUN, None), record, metrics)
    for record in evaluation:
        if record["kind"] == RecordKind.GENERATED:
            setting = Setting(*(record[field] for field in Setting._fields))
            add(setting, record, record["metrics"])
    return {
        setting: dataclasses.replace(
            Scores.of(
                by_step, dict.fromkeys(name for step in sorted(by_step) for name in by_step[step])
            ),
            majority_baseline=baselines[setting],
        )
        for setting, by_step in found.items()
    }


def qualities(evaluation: Sequence[Record]) -> dict[int, dict[str, float]]:
    """Negative log perplexities that `switch_jax eval` found: step -> task -> nats."""
    found: dict[int, dict[str, float]] = {}
    for record in evaluation:
        of_all = (record["split"], record["max_examples"]) == ("validation", None)
        if record["kind"] == RecordKind.TEACHER_FORCED and of_all:
            found.setdefault(record["step"], {})[record["task"]] = record["metrics"][QUALITY]
    return found
