"""Scores on downstream tasks, and the quality of the checkpoint that each run started from."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from switch_jax.reports.configurations import Configuration
from switch_jax.reports.held_out import QUALITY, preferred
from switch_jax.reports.runs import Origin, Run
from switch_jax.reports.summary import Rows, mean_and_deviation
from switch_jax.run_folder import RecordKind, RunFolder, read_eval_metrics
from switch_jax.units import percent, rounded

# Metrics of T5's tasks that count from 0 to 100.
_PER_CENT = ("accuracy", "average", "bleu", "em", "exact_match", "f1", "sequence_accuracy")
_IN_RUN = "greedy, in the run"  # the decoding of a run with INFER_EVAL
_AVERAGE = "average"  # what `switch_jax eval` calls the score of a mixture


@dataclasses.dataclass(frozen=True)
class Setting:
    """What was evaluated, and how; scores in different settings cannot be compared.

    Attributes:
      task: a task, or the mixture whose average it is.
      split: of the task.
      decoding: how, in words.
      max_examples: the number of examples of each task; None: all, or in a run, whose EVAL_STEPS
        may leave some out, not known.
    """

    task: str
    split: str
    decoding: str
    max_examples: int | None


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores of one run in one setting, by checkpoint in ascending order.

    Attributes:
      step: [T] int.
      values: metric -> [T] float, NaN where there is none; the task's first metric comes first.
    """

    step: np.ndarray
    values: dict[str, np.ndarray]

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
class Upstream:
    """The checkpoint that a run started from.

    Attributes:
      run: name of the run that saved it.
      step: of the checkpoint.
      quality: task -> negative log perplexity, nats; empty where it is not known.
    """

    run: str
    step: int
    quality: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Downstream:
    """Downstream scores of all runs in a report; each list has an entry for each run.

    Attributes:
      scores: by setting; empty where neither the run nor `switch_jax eval` has generated text.
      upstream: None for a run that started from scratch, or where run.json names no checkpoint.
      left_out: a line about invalid content of eval/metrics.jsonl, or None.
    """

    scores: list[dict[Setting, Scores]]
    upstream: list[Upstream | None]
    left_out: list[str | None]

    @property
    def settings(self) -> list[Setting]:
        """All settings: averages over mixtures first, then in the order of the files."""
        found = {setting: scores for run in self.scores for setting, scores in run.items()}
        return sorted(found, key=lambda setting: found[setting].metric != _AVERAGE)

    @property
    def upstream_task(self) -> str | None:
        """The pretraining task on which all checkpoints of known quality were evaluated."""
        known = [set(up.quality) for up in self.upstream if up and up.quality]
        return preferred(set.intersection(*known)) if known else None

    def is_per_cent(self, setting: Setting, metric: str) -> bool:
        """Whether a metric counts from 0 to 100, as T5's do: by its name, and a value above 1."""
        found = [run[setting].values.get(metric) for run in self.scores if setting in run]
        return (metric in _PER_CENT or metric.startswith("rouge")) and any(
            bool((values > 1).any()) for values in found if values is not None
        )

    def title(self, setting: Setting) -> str:
        """The task, with what distinguishes the setting from other settings of that task."""
        others = [s for s in self.settings if s.task == setting.task]
        details = {
            "split": setting.split,
            "decoding": setting.decoding,
            "max_examples": f"at most {setting.max_examples} examples"
            if setting.max_examples
            else "all examples",
        }
        if setting.decoding == _IN_RUN:
            del details["max_examples"]
        differing = [
            text for name, text in details.items() if len({getattr(s, name) for s in others}) > 1
        ]
        return f"{setting.task} ({'; '.join(differing)})" if differing else setting.task


def read_downstream(runs: Sequence[Run]) -> Downstream:
    """Reads the scores of each run, and of the run that it started from.

    Of records of the same checkpoint and setting the newest counts.
    """
    files = [read_eval_metrics(RunFolder.at(run.folder)) for run in runs]
    return Downstream(
        scores=[
            _scores_in_run(run) | _scores(file.value) for run, file in zip(runs, files, strict=True)
        ],
        upstream=[_upstream(run.origin) for run in runs],
        left_out=[file.left_out for file in files],
    )


def left_out(runs: Sequence[Run], downstream: Downstream) -> list[str]:
    """A line for each file of the runs with content that is not valid, and was left out."""
    scores = zip(runs, downstream.left_out, strict=True)
    return [line for run, of_scores in scores for line in (*run.left_out, of_scores) if line]


def _scores_in_run(run: Run) -> dict[Setting, Scores]:
    """What a run with INFER_EVAL found while it trained."""
    return {
        Setting(task, "validation", _IN_RUN, None): _columns(by_step)
        for task, by_step in run.generated.items()
    }


def _scores(lines: Sequence[dict[str, Any]]) -> dict[Setting, Scores]:
    found: dict[Setting, dict[int, dict[str, float]]] = {}
    for line in lines:
        if line["kind"] == RecordKind.GENERATED:
            setting = Setting(line["task"], line["split"], line["decoding"], line["max_examples"])
            found.setdefault(setting, {})[line["step"]] = line["metrics"]
    return {setting: _columns(by_step) for setting, by_step in found.items()}


def _columns(by_step: dict[int, dict[str, float]]) -> Scores:
    steps = sorted(by_step)
    names = dict.fromkeys(name for step in steps for name in by_step[step])
    values = {name: np.array([by_step[s].get(name) for s in steps], float) for name in names}
    return Scores(np.array(steps, int), values)


def _upstream(origin: Origin | None) -> Upstream | None:
    """The quality of a checkpoint, as far as it is known."""
    if origin is None:
        return None
    run, step, quality = origin.run, origin.step, {}
    if run is None:
        return Upstream(origin.name, step, {})
    for task, curve in run.evals.items():
        values = curve.get(QUALITY)[curve.step <= step]
        if len(values):
            quality[task] = float(values[-1])
    if not quality:
        quality = {
            line["task"]: line["metrics"][QUALITY]
            for line in read_eval_metrics(RunFolder.at(run.folder)).value
            if line["kind"] == RecordKind.TEACHER_FORCED
            and (line["step"], line["split"], line["max_examples"]) == (step, "validation", None)
        }
    finite = {task: x for task, x in quality.items() if x is not None and math.isfinite(x)}
    return Upstream(origin.name, step, finite)


def score_rows(downstream: Downstream) -> Rows:
    """Each metric at the best checkpoint and at the last: (label, a text for each run)."""

    def best(scores: Scores, metric: str, form: Callable[[float], str]) -> str:
        value, step = scores.values[metric][scores.best], scores.step[scores.best]
        return f"{form(value)} at step {step:,}"

    def last(scores: Scores, metric: str, form: Callable[[float], str]) -> str:
        return form(scores.values[metric][-1])

    rows = []
    for setting in downstream.settings:
        columns = [run.get(setting) for run in downstream.scores]
        for metric in dict.fromkeys(name for scores in columns if scores for name in scores.values):
            label = f"{downstream.title(setting)}: {metric}"
            form: Callable[[float], str] = rounded
            if downstream.is_per_cent(setting, metric):
                label, form = f"{label} [%]", _per_cent
            known = [scores if scores and metric in scores.values else None for scores in columns]
            rows += [
                (
                    f"{label}, {which}",
                    [text(scores, metric, form) if scores else "" for scores in known],
                )
                for which, text in (("best", best), ("last", last))
            ]
    return rows


def _per_cent(value: float) -> str:
    return percent(value / 100)


def upstream_rows(downstream: Downstream) -> Rows:
    """The checkpoint that each run started from, and its quality; no rows if all began anew."""
    if not any(downstream.upstream):
        return []
    task = downstream.upstream_task

    def start(upstream: Upstream | None) -> str:
        return f"{upstream.run}, step {upstream.step:,}" if upstream else ""

    def quality(upstream: Upstream | None) -> str:
        if upstream is None:
            return ""
        own = task or preferred(set(upstream.quality))
        if own not in upstream.quality:
            return "not known"
        return rounded(upstream.quality[own]) + ("" if task else f" of {own}")

    return [
        ("Started from", [start(u) for u in downstream.upstream]),
        ("Upstream neg. log perplexity [nats]", [quality(u) for u in downstream.upstream]),
    ]


def rows_over_seeds(found: Sequence[Configuration], downstream: Downstream) -> Rows:
    """Upstream quality and best scores, mean ± standard deviation over the seeds.

    Args:
      found: the configurations.
      downstream: of their runs, in this order.

    Returns:
      (what, a text for each configuration); no rows where none has several seeds, or no scores.
    """
    if not downstream.settings or all(len(c.runs) == 1 for c in found):
        return []
    task = downstream.upstream_task

    def row(of_runs: Sequence[float], form: Callable[[float], str]) -> list[str]:
        values = iter(of_runs)
        return [mean_and_deviation([next(values) for _ in c.runs], form) for c in found]

    rows = []
    if task is not None:
        quality = [up.quality.get(task, math.nan) if up else math.nan for up in downstream.upstream]
        rows.append(("Upstream neg. log perplexity [nats]", row(quality, rounded)))
    for setting in downstream.settings:
        scores = [run.get(setting) for run in downstream.scores]
        best = [s.best_score if s else math.nan for s in scores]
        metric = next(s.metric for s in scores if s)
        unit, form = "", rounded
        if downstream.is_per_cent(setting, metric):
            unit, form = " [%]", "{:.2f}".format
        rows.append((f"{downstream.title(setting)}: best {metric}{unit}", row(best, form)))
    return rows
