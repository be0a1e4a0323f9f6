"""Evaluation of a run's checkpoints: teacher-forced on given targets, and by decoding."""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from etils import epath

from switch_jax.checkpointing import load_parameters
from switch_jax.data.configured_tasks import OpenedTasks
from switch_jax.evaluation.task_evaluator import TaskEvaluator, average_of_tasks
from switch_jax.evaluation.teacher_forced import Evaluation, read_validation_sets
from switch_jax.inference.predictor import Predictor
from switch_jax.inference.trained_model import TrainedModel
from switch_jax.metrics import MetricWriter
from switch_jax.run_folder import RecordKind, RunFolder
from switch_jax.runtime.processes import from_first, is_first, run_on_all, run_on_first
from switch_jax.storage import explain_write_errors, write_file
from switch_jax.tensorflow_setup import seqio


class CheckpointEvaluator:
    """Evaluates checkpoints one by one, and reuses the records of earlier evaluations.

    It writes to `MODEL_DIR/eval`: `metrics.jsonl` and TensorBoard; the inputs, targets and
    prediction of each example in `predictions/TASK-SPLIT-STEP.jsonl`. It does not take the lock of
    the run, which may still be training.
    """

    def __init__(
        self, trained: TrainedModel, opened: OpenedTasks, num_examples: int | None = None
    ) -> None:
        """Opens the folder; does not read examples yet.

        Args:
          trained: the run.
          opened: the tasks to evaluate.
          num_examples: decode only this many examples of each task, the first ones. Teacher-forced
            evaluation takes this many rows, which hold several examples with PACK, rounded up to
            whole batches. None = all.

        Raises:
          UserError: the folder cannot be written.
        """
        self._trained, self._opened, self._num_examples = trained, opened, num_examples
        self._folder, self._data = RunFolder(trained.model_dir).evaluation, opened.config
        self._predictor = Predictor(trained)
        self._options: dict[str, dict[str, Any]] = {}  # of the current checkpoint's records
        self._writer = run_on_all(self._open)
        self._task_evaluators: dict[str, TaskEvaluator] = {}

    def _open(self) -> MetricWriter:
        with explain_write_errors(self._folder.path):
            self._folder.predictions.mkdir(parents=True, exist_ok=True)
        return MetricWriter(self._folder, active=is_first())

    def close(self) -> None:
        """Writes buffered records."""
        run_on_all(self._writer.close)

    def evaluate(
        self, step: int, settings: dict[str, Any], log: Callable[[str], None]
    ) -> list[dict[str, Any]]:
        """Returns the records of one checkpoint, and computes those that do not exist yet.

        Args:
          step: of the checkpoint.
          settings: what else its scores depend on, as JSON; an earlier record with other settings
            is not reused.
          log: prints a line of progress.

        Returns:
          For each task a record of kind 'teacher_forced' with 'neg_log_perplexity' and 'accuracy';
          for each task with metrics one of kind 'generated' with their values and the
          'majority_baseline' of `TaskEvaluator`; if there are several such tasks, one for the
          mixture, whose 'average' is that of `average_of_tasks`.

        Raises:
          UserError: the checkpoint cannot be read; see also `TaskEvaluator`.
        """
        decoding = self._trained.decoding.describe()
        self._options = {
            RecordKind.TEACHER_FORCED: self._describe({**settings, "pack": self._data.pack}),
            RecordKind.GENERATED: {**self._describe(settings), "decoding": decoding},
        }
        with_metrics = [task for task in self._opened if task.metric_objs]
        to_generate = [
            t for t in with_metrics if self._find(RecordKind.GENERATED, step, t.name) is None
        ]
        to_score = [
            t for t in self._opened if self._find(RecordKind.TEACHER_FORCED, step, t.name) is None
        ]
        if to_generate or to_score:
            log(f"reading the checkpoint of step {step}")
            parameters = load_parameters(self._trained.model_dir, self._trained.parameters, step)
            if to_score:
                log(f"step {step}: scoring the targets")
                self._score_targets(step, parameters)
            for task in to_generate:
                log(f"step {step}: {task.name}")
                self._generate(step, task, parameters)
        return list(self._records(step, with_metrics))

    def _describe(self, settings: dict[str, Any]) -> dict[str, Any]:
        """What is written beside a record's metrics, of what they depend on."""
        return {
            "split": self._data.split,
            "max_examples": self._num_examples,
            # As text: TensorBoard would show the numbers of a dict as metrics.
            "settings": json.dumps(settings, sort_keys=True),
        }

    def _records(self, step: int, with_metrics: Sequence[seqio.Task]) -> Iterator[dict[str, Any]]:
        for task in self._opened:
            yield self._find(RecordKind.TEACHER_FORCED, step, task.name) or {}
        generated = [
            self._find(RecordKind.GENERATED, step, task.name) or {} for task in with_metrics
        ]
        yield from generated
        if len(generated) > 1:
            yield self._average(step, generated)

    def _average(self, step: int, generated: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The mixture's record, which is written if it does not exist yet."""
        mixture = self._data.mixture_or_task_name
        record = self._find(RecordKind.GENERATED, step, mixture)
        if record is None:
            metrics = {r["task"]: r["metrics"] for r in generated}  # null in JSON is NaN
            average = average_of_tasks(metrics)
            self._write(RecordKind.GENERATED, step, mixture, {"average": average})
            record = self._find(RecordKind.GENERATED, step, mixture)
        return record or {}

    def _score_targets(self, step: int, parameters: Any) -> None:
        for task, metrics in self._evaluation(parameters).items():
            self._write(RecordKind.TEACHER_FORCED, step, task, metrics)

    @functools.cached_property
    def _evaluation(self) -> Evaluation:
        trained = self._trained
        batch_size, num_batches = trained.config.run.batch_size, None
        if self._num_examples is not None:
            num_batches = -(-self._num_examples // batch_size)
        batches = read_validation_sets(self._opened, batch_size, num_batches)
        return Evaluation(trained.config, trained.mesh, trained.parameters, self._opened, batches)

    def _generate(self, step: int, task: seqio.Task, parameters: Any) -> None:
        data = self._data
        if task.name not in self._task_evaluators:
            self._task_evaluators[task.name] = TaskEvaluator(task, data, self._num_examples)
        evaluator = self._task_evaluators[task.name]
        metrics, rows = evaluator.evaluate(self._predictor, parameters)
        self._write_lines(self._folder.predictions_of(task.name, data.split, step), rows)
        more = {"examples": len(rows), "majority_baseline": evaluator.majority_baseline}
        self._write(RecordKind.GENERATED, step, task.name, metrics, more)

    def _write(
        self, kind: RecordKind, step: int, task: str, metrics: dict[str, float], more: Any = None
    ) -> None:
        values = {"task": task, **self._options[kind], **(more or {}), "metrics": metrics}
        run_on_all(lambda: self._writer.write(kind, step, 0.0, values))

    def _write_lines(self, file: epath.Path, rows: Sequence[dict[str, Any]]) -> None:
        """Writes JSON lines, on the first process."""
        lines = [json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows]
        run_on_first(lambda: write_file(file, "".join(lines)))

    def _find(self, kind: RecordKind, step: int, task: str) -> dict[str, Any] | None:
        """The record with the current options, as the first process sees it, or None."""
        values = {"kind": kind, "step": step, "task": task, **self._options[kind]}
        return from_first(lambda: self._writer.find(values))
