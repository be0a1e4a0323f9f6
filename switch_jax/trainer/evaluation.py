"""Teacher-forced evaluation on every validation set, and the best evaluation so far."""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from switch_jax.config import Config
from switch_jax.data.batch import Batch
from switch_jax.data.configured_tasks import OpenedTasks
from switch_jax.data.data_files import FilesOfTask, changed_files
from switch_jax.data.eval_batches import eval_batches
from switch_jax.data.vocabularies import content_tokens
from switch_jax.errors import UserError
from switch_jax.fields import short_repr
from switch_jax.partitioning.mesh import replicated
from switch_jax.partitioning.placing import put_batch
from switch_jax.train_step.loss import TokenSums
from switch_jax.train_step.lowering import abstract_batch, compiler_options
from switch_jax.train_step.step import EvalSums, make_eval_step

ALL = "all"
CONTENT = "content_"  # prefix of what is measured without EOS and sentinels
GENERATED = "generated_"  # prefix of a task's own metrics, of generated text
_QUALITY = "neg_log_perplexity"
_SETS = "validation sets"
_NOTABLE_DROP = 0.02  # of the tokens: an evaluation that drops more says so
METRICS = (_QUALITY, "accuracy", f"{CONTENT}{_QUALITY}", f"{CONTENT}accuracy")


def read_validation_sets(
    opened: OpenedTasks, batch_size: int, num_batches: int | None
) -> dict[str, list[Batch]]:
    """The batches of each task.

    Every host reads all of them: they are small, and their batches are the same on every host.

    Args:
      opened: the tasks that are evaluated.
      batch_size, num_batches: as for `eval_batches`, of each task.
    """

    def read(task: str) -> list[Batch]:
        return list(eval_batches(opened.only(task), batch_size, num_batches))

    # Opening a set takes about as long as reading it, and a mixture may have 100 of them.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1), "validation") as threads:
        return dict(zip(opened.names, threads.map(read, opened.names), strict=True))


def lower_eval_step(
    config: Config, mesh: Mesh, parameters: Any, is_content: np.ndarray
) -> jax.stages.Lowered:
    """The step of an `Evaluation`, ready to be compiled; arguments as there."""
    step = make_eval_step(config.model, is_content, config.run.num_microbatches)
    jitted = jax.jit(
        step,
        out_shardings=replicated(mesh),  # every host reads the sums
        compiler_options=compiler_options(),
    )
    return jitted.lower(parameters, abstract_batch(config, mesh))


class Evaluation:
    """Scores a model on the validation sets of a task, or of each task of a mixture."""

    def __init__(
        self,
        config: Config,
        mesh: Mesh,
        parameters: Any,
        opened: OpenedTasks,
        batches: Mapping[str, Sequence[Batch]],
    ) -> None:
        """Compiles.

        Args:
          config: the run; its data are not read. A batch is computed in its microbatches.
          mesh: the devices.
          parameters: `ShapeDtypeStruct`s on the mesh.
          opened: the tasks that are evaluated.
          batches: of each task, from `read_validation_sets`.
        """
        self._batches = batches
        self._mesh = mesh
        is_content = content_tokens(opened.tasks[0].output_features["targets"].vocabulary)
        self._step = lower_eval_step(config, mesh, parameters, is_content).compile()

    def __call__(self, parameters: Any) -> dict[str, dict[str, float]]:
        """Metrics by task, and with several tasks also "all", their mean over all tokens."""
        by_task = {}
        for task, batches in self._batches.items():
            on_devices = [self._step(parameters, put_batch(b, self._mesh)) for b in batches]
            by_task[task] = summed(jax.device_get(on_devices))
        if len(by_task) > 1:
            by_task[ALL] = summed(list(by_task.values()))
        return {task: _metrics(sums) for task, sums in by_task.items()}


def summed(parts: Sequence[EvalSums]) -> EvalSums:
    """Their sum in double precision: in float32, 2^24 tokens and one more are 2^24.

    Args:
      parts: at least one; scalars of any dtype.
    """
    return jax.tree.map(lambda *values: sum(map(float, values)), *parts)


def _metrics(sums: EvalSums) -> dict[str, float]:
    content = _per_token(sums.content)
    metrics = _per_token(sums.targets) | {f"{CONTENT}{name}": x for name, x in content.items()}
    if sums.routed is not None:
        metrics["dropped"] = sums.routed.dropped / max(sums.routed.tokens, 1.0)
    return metrics


def _per_token(sums: TokenSums) -> dict[str, float]:
    tokens = max(sums.tokens, 1.0)
    cross_entropy = sums.cross_entropy / tokens
    return {
        "neg_log_perplexity": -cross_entropy,
        "cross_entropy": cross_entropy,
        "accuracy": sums.correct / tokens,
        "tokens": sums.tokens,
    }


# Metrics by task; under "generated" the task's own, by name.
Results = Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass
class Best:
    """The best evaluation so far, by a metric that is better when it is higher.

    Attributes:
      value: None before the first evaluation whose metric is a number.
      step: of the best evaluation.
      since: evaluations since the best one, including those that gave NaN; all, if there is no
        best.
      of: what the values are of, see `measured`; None: not known, as an earlier version saved it.
    """

    value: float | None = None
    step: int = 0
    since: int = 0
    of: dict[str, Any] | None = None

    def update(self, step: int, value: float) -> None:
        """Counts an evaluation. NaN is never the best."""
        if value > (-math.inf if self.value is None else self.value):
            self.value, self.step, self.since = value, step, 0
        else:
            self.since += 1

    def in_words(self, metric: str) -> str:
        """How long there has been no better evaluation, for a message; `metric`: its name."""
        if self.value is None:
            return f"no number for {metric} in {self.since} evaluations"
        return f"no better {metric} than that of step {self.step} in {self.since} evaluations"

    def as_json(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return dataclasses.asdict(self)


def measured(config: Config, files: Mapping[str, FilesOfTask] | None) -> dict[str, Any] | None:
    """What the values of BEST_METRIC are of, as JSON: values of other things are not compared.

    Args:
      config: the run.
      files: of the validation sets; None: there are no evaluations, so it returns None, too.
    """
    if files is None:
        return None
    run, data = config.run, config.data
    task = run.best_metric.rpartition("/")[0]
    sets = [task] if task in files else files  # otherwise the metric is over all of them
    return {
        "BEST_METRIC": run.best_metric,
        "EVAL_STEPS * BATCH_SIZE": run.eval_steps * run.batch_size,
        "TASK_FEATURE_LENGTHS": dict(data.task_feature_lengths),
        "PACK": data.pack,
        "EVAL_EXPERT_CAPACITY_FACTOR": config.model.eval_expert_capacity_factor,
        _SETS: {name: files[name]._asdict() for name in sets},
    }


def differences(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> list[str]:
    """What differs between two values of `measured`, as "BEST_METRIC 'accuracy' -> ..."."""
    if now is None:
        return []
    if before is None:
        return ["the checkpoint does not say of what its best evaluation was"]
    changes = [
        f"{name} {before.get(name)!r} -> {value!r}"
        for name, value in now.items()
        if name != _SETS and before.get(name) != value
    ]
    old, new = (
        {task: FilesOfTask(**files) for task, files in of[_SETS].items()} for of in (before, now)
    )
    if old.keys() != new.keys():
        changes.append(f"{_SETS} {short_repr(sorted(old))} -> {short_repr(sorted(new))}")
    return changes + [f"{task} {change}" for task, change in changed_files(old, new).items()]


def check_metric(name: str, opened: OpenedTasks, infer_eval: bool) -> None:
    """Raises UserError where BEST_METRIC names no metric of these validation sets.

    Args:
      name: BEST_METRIC.
      opened: the validation sets.
      infer_eval: whether the tasks' own metrics are computed, whose names are not known yet.
    """
    task, _, metric = name.rpartition("/")
    tasks = [*opened.names, ALL]
    is_generated = metric.startswith(GENERATED)
    if is_generated and not infer_eval:
        raise UserError(
            f"best_metric = {name!r} is a metric of generated text, computed with INFER_EVAL = True"
        )
    if not (is_generated or metric in METRICS) or (task and task not in tasks):
        raise UserError(
            f"best_metric = {name!r}: write {' or '.join(METRICS)}, of one task as TASK/accuracy, "
            f"or with INFER_EVAL = True a metric of its own as TASK/{GENERATED}NAME; "
            f"tasks are {', '.join(tasks)}"
        )


def in_words(results: Results, best_metric: str) -> str:
    """For a message: quality on all tasks, the metric of the best checkpoints, dropped tokens."""
    held_out = list(results.values())[-1]
    text = f"held-out negative log perplexity {held_out[_QUALITY]:.4f}"
    if best_metric != _QUALITY:
        text += f", {best_metric} {metric_of(results, best_metric):.4f}"
    if held_out.get("dropped", 0.0) > _NOTABLE_DROP:
        text += f", {held_out['dropped']:.1%} of the tokens dropped"
    return text


def metric_of(results: Results, name: str) -> float:
    """The value of BEST_METRIC; over all tasks if it names no task.

    Raises:
      UserError: the metric was not computed.
    """
    task, _, metric = name.rpartition("/")
    values = results[task] if task in results else list(results.values())[-1]
    if metric in METRICS:
        return values[metric]
    generated = values.get("generated", {})
    if metric.removeprefix(GENERATED) not in generated:
        known = [
            f"{task}/{GENERATED}{own}"
            for task, values in results.items()
            for own in values.get("generated", ())
        ]
        raise UserError(f"best_metric = {name!r}: of generated text there are {', '.join(known)}")
    return generated[metric.removeprefix(GENERATED)]
