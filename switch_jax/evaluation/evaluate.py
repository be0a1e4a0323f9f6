"""Evaluation of a run's checkpoints: what `switch_jax eval` and `switch_jax.evaluate` do."""

import functools
import json
import math
import sys
from collections.abc import Callable
from typing import Any

import jax

from switch_jax.checkpointing import chosen_step
from switch_jax.data.catalogue.checks import check_examples, open_tasks
from switch_jax.data.catalogue.configured_tasks import OpenedTasks
from switch_jax.data.reading.sources import data_locations
from switch_jax.evaluation.task_metrics import DecodingEvaluation, average_of_tasks, check_metrics
from switch_jax.evaluation.teacher_forced import ALL, TeacherForcedEvaluation
from switch_jax.inference.decoding import DecodingConfig
from switch_jax.inference.predictor import Predictor
from switch_jax.inference.trained_model import TrainedModel
from switch_jax.monitoring import MetricWriter
from switch_jax.run_folder import Record, RecordKind, RunFolder
from switch_jax.runtime.multihost import from_first, is_first, run_on_all, run_on_first
from switch_jax.storage import explain_write_errors, write_file
from switch_jax.utils.errors import UserError
from switch_jax.utils.fields import Range


def evaluate_checkpoints(
    model: TrainedModel, decoding: DecodingConfig, checkpoint: str, max_examples: int | None
) -> list[Record]:
    """Evaluates a run on the tasks of its data config; prints progress to standard error.

    Returns the records, earlier ones included, as `CheckpointEvaluator.evaluate`.

    Args:
      model, decoding: the run, and how its text is decoded.
      checkpoint: 'latest', 'best', 'all', or the number of a step.
      max_examples: N, to decode the first N examples of each task, and to score N rows, rounded up
        to whole batches (with PACK a row has several examples). None: all.

    Raises:
      FieldError: `checkpoint` is none of these, or `max_examples` is out of range.
      UserError: there is no such checkpoint, a task cannot be read, or a metric returns no dict of
        numbers.
    """
    if model.source is not None:
        raise UserError(f"{model.path} is not the folder of a run: `convert` makes one of it")
    Range(1, 10**9).check("max_examples", max_examples)
    saved = RunFolder(model.path).checkpoint_steps
    steps = [chosen_step(model.path, "latest" if checkpoint == "all" else checkpoint)]
    if checkpoint == "all":
        steps = from_first(saved)
    opened = open_tasks(model.config.data)
    check_examples(opened, model.config.model.stacks)
    check_metrics(opened, model.config.model.stacks)
    records = []
    with jax.set_mesh(model.mesh):
        evaluator = CheckpointEvaluator(model, decoding, opened, max_examples)
        for step in steps:
            if step in from_first(saved):
                settings = {**model.settings(step), "places": data_locations()}
                records += evaluator.evaluate(step, settings)
            else:
                _log(f"the run has removed the checkpoint of step {step} meanwhile")
        evaluator.close()
    return records


class CheckpointEvaluator:
    """Evaluates checkpoints one by one, and reuses the records of earlier evaluations.

    It writes to `MODEL_DIR/eval`: `metrics.jsonl` and TensorBoard; the inputs, targets and
    prediction of each example in `predictions/TASK-SPLIT-STEP.jsonl`. It does not take the lock of
    the run, which may still be training.
    """

    def __init__(
        self,
        model: TrainedModel,
        decoding: DecodingConfig,
        opened: OpenedTasks,
        max_examples: int | None = None,
    ) -> None:
        """Opens the folder, UserError where it cannot be written; reads no examples yet."""
        self._model, self._opened, self._max_examples = model, opened, max_examples
        self._folder = RunFolder(model.path).evaluation
        predictor = Predictor(model.config, model.mesh, decoding)
        self._by_decoding = DecodingEvaluation(predictor, opened, max_examples)
        self._decoding = decoding.describe()
        self._writer = run_on_all(self._open)

    def _open(self) -> MetricWriter:
        with explain_write_errors(self._folder.path):
            self._folder.predictions.mkdir(parents=True, exist_ok=True)
        return MetricWriter(self._folder, active=is_first())

    def close(self) -> None:
        """Writes buffered records."""
        run_on_all(self._writer.close)

    def evaluate(self, step: int, settings: dict[str, Any]) -> list[Record]:
        """The records of one checkpoint; computes those that do not exist yet.

        `settings` are what else the scores depend on, as JSON: records with other ones are not
        reused. Each task has a record of kind 'teacher_forced' with 'neg_log_perplexity' and
        'accuracy'; one without metrics also 'perplexity'; one with metrics also a record of kind
        'generated' with their values and the 'majority_baseline' of `TaskResult`. If several have
        metrics, one for the mixture has `average_of_tasks` as 'average'.

        Raises UserError: the checkpoint cannot be read; see also `DecodingEvaluation`.
        """
        data, given, decoded = self._opened.config, RecordKind.TEACHER_FORCED, RecordKind.GENERATED

        def options(**settings: Any) -> dict[str, Any]:
            # As text: TensorBoard would show the numbers of a dict as metrics.
            text = json.dumps(settings, sort_keys=True)
            return {"split": data.split, "max_examples": self._max_examples, "settings": text}

        options_by_kind = {
            given: options(**settings, pack=data.pack),
            decoded: options(**settings) | {"decoding": self._decoding},
        }

        @functools.cache
        def parameters() -> Any:
            _log(f"reading the checkpoint of step {step}")
            return self._model.load(step)

        @functools.cache
        def by_targets() -> dict[str, dict[str, float]]:
            loaded = parameters()
            _log(f"step {step}: scoring the targets")
            return self._by_targets(loaded)

        def by_decoding(task: str) -> dict[str, Any]:
            loaded = parameters()
            _log(f"step {step}: {task}")
            metrics, baseline, rows = self._by_decoding(task, loaded)
            lines = [json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows]
            file = self._folder.predictions_of(task, data.split, step)
            run_on_first(lambda: write_file(file, "".join(lines)))
            return {"examples": len(lines), "majority_baseline": baseline, "metrics": metrics}

        def record(kind: RecordKind, task: str, compute: Callable[[str], Any]) -> Record:
            """The record with these options, as the first process sees it; new if there is none."""
            described = {"task": task, **options_by_kind[kind]}
            wanted = {"kind": kind, "step": step, **described}
            if not from_first(lambda: self._writer.find(wanted)):
                values = {**described, **compute(task)}
                run_on_all(lambda: self._writer.write(kind, step, 0.0, values))
            return from_first(lambda: self._writer.find(wanted)) or {}

        def scored(task: str) -> dict[str, Any]:
            metrics = by_targets()[task]
            if task not in self._by_decoding.tasks:  # it has no metrics: text to pretrain on
                metrics = metrics | {"perplexity": math.exp(min(metrics["cross_entropy"], 700.0))}
            return {"metrics": metrics}

        records = [record(given, task, scored) for task in self._opened.names]
        if len(records) > 1:
            record(given, ALL, scored)  # for those that read the file
        generated = [record(decoded, task, by_decoding) for task in self._by_decoding.tasks]
        if len(generated) > 1:
            by_task = {r["task"]: r["metrics"] for r in generated}  # null in JSON is NaN
            average = {"metrics": {"average": average_of_tasks(by_task)}}
            generated.append(record(decoded, data.mixture_or_task_name, lambda task: average))
        return records + generated

    @functools.cached_property
    def _by_targets(self) -> TeacherForcedEvaluation:
        """The evaluation of all tasks together; reads their batches and compiles a program once."""
        model, num_batches = self._model, None
        if self._max_examples is not None:
            num_batches = -(-self._max_examples // model.config.run.batch_size)
        return TeacherForcedEvaluation(
            model.config, model.mesh, model.parameters, self._opened, num_batches
        )


def _log(text: str) -> None:
    if is_first():
        print(text, file=sys.stderr, flush=True)
