"""Scores of a run's checkpoints: of given targets, and of what the model says by itself."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from switch_jax.checkpointing import load_parameters
from switch_jax.data.configured_tasks import OpenedTasks
from switch_jax.data.tensorflow_setup import seqio
from switch_jax.files import atomic_write, explain_write_errors
from switch_jax.inference.predictor import Predictor
from switch_jax.inference.task_scores import TaskScores
from switch_jax.inference.trained_model import TrainedModel
from switch_jax.metrics import MetricWriter
from switch_jax.run_folder import RecordKind, RunFolder
from switch_jax.runtime.processes import gather, is_first, run_on_all, run_on_first
from switch_jax.trainer.evaluation import Evaluation


class CheckpointScores:
    """Evaluates checkpoints one by one, and leaves out what has been done before.

    Writes `MODEL_DIR/eval`: `metrics.jsonl`, TensorBoard, and `predictions/TASK-SPLIT-STEP.jsonl`,
    what was asked, expected and said. Takes no lock: the run may be going on.
    """

    def __init__(
        self, trained: TrainedModel, opened: OpenedTasks, num_examples: int | None = None
    ) -> None:
        """Opens the folder; reads no example yet.

        Args:
          trained: the run.
          opened: the tasks that are scored.
          num_examples: only the first examples of each task; of the targets whole batches that hold
            this number of rows; None = all.

        Raises:
          UserError: a folder that cannot be written.
        """
        self._trained, self._opened, self._number = trained, opened, num_examples
        self._folder, self._data = trained.folder, opened.config
        self._tasks = opened.tasks
        self._predictor = Predictor(trained)
        self._decoding = trained.decoding.describe()
        self._options: dict[str, dict[str, Any]] = {}  # by kind, of the checkpoint under way
        self._writer = run_on_all(self._open)
        self._sets: dict[str, TaskScores] = {}
        self._given: Evaluation | None = None

    def _open(self) -> MetricWriter:
        folder = RunFolder(self._folder).evaluation
        with explain_write_errors(folder.path):
            folder.predictions.mkdir(parents=True, exist_ok=True)
        return MetricWriter(folder, active=is_first())

    def close(self) -> None:
        """Writes what is buffered."""
        run_on_all(self._writer.close)

    def evaluate(
        self, step: int, settings: dict[str, Any], say: Callable[[str], None]
    ) -> list[dict[str, Any]]:
        """The records of one checkpoint, computed or found.

        Args:
          step: of the checkpoint.
          settings: what its scores depend on besides, as JSON: one found with others is not taken.
          say: prints what is being done.

        Returns:
          Of each task a record of kind 'teacher_forced' with 'neg_log_perplexity' and 'accuracy';
          of each task with metrics one of kind 'generated' with their values; of several such tasks
          one of the mixture, whose 'average' is the mean over tasks of each task's mean metric, as
          SuperGLUE defines its score (GLUE counts MNLI's two validation sets as one task).

        Raises:
          UserError: the checkpoint cannot be read; see `TaskScores`.
        """
        # As text, or TensorBoard would show numbers in it.
        given_options = {
            "split": self._data.split,
            "max_examples": self._number,
            "settings": json.dumps(settings, sort_keys=True),
        }
        self._options = {
            RecordKind.TEACHER_FORCED: given_options,
            RecordKind.GENERATED: {**given_options, "decoding": self._decoding},
        }
        scored = [task for task in self._tasks if task.metric_objs]
        missing = [
            task for task in scored if self._done(RecordKind.GENERATED, step, task.name) is None
        ]
        given = [self._done(RecordKind.TEACHER_FORCED, step, task.name) for task in self._tasks]
        if missing or None in given:
            say(f"reading the checkpoint of step {step}")
            parameters = load_parameters(self._folder, self._trained.parameters, step)
            if None in given:
                say(f"step {step}: scoring the targets")
                self._score_targets(step, parameters)
            for task in missing:
                say(f"step {step}: {task.name}")
                self._generate(step, task, parameters)
        return list(self._records(step, scored))

    def _records(self, step: int, scored: Sequence[seqio.Task]) -> Iterator[dict[str, Any]]:
        for task in self._tasks:
            yield self._done(RecordKind.TEACHER_FORCED, step, task.name) or {}
        found = [self._done(RecordKind.GENERATED, step, task.name) or {} for task in scored]
        yield from found
        name = self._data.mixture_or_task_name
        if len(found) > 1:
            known = self._done(RecordKind.GENERATED, step, name)
            if known is None:
                # As float, null is NaN again, which it was before it was written.
                values = [np.array(list(r["metrics"].values()), float) for r in found]
                average = float(np.mean([v.mean() for v in values]))
                self._write(RecordKind.GENERATED, step, name, {"average": average})
                known = self._done(RecordKind.GENERATED, step, name)
            yield known or {}

    def _score_targets(self, step: int, parameters: Any) -> None:
        if self._given is None:
            config, mesh = self._trained.config, self._trained.mesh
            rows = config.run.batch_size
            batches = 10**9 if self._number is None else -(-self._number // rows)
            config = config.replace("run", eval_steps=batches)
            self._given = Evaluation(config, mesh, self._trained.parameters, self._opened)
        for task, metrics in self._given(parameters).items():
            self._write(RecordKind.TEACHER_FORCED, step, task, metrics)

    def _generate(self, step: int, task: seqio.Task, parameters: Any) -> None:
        data = self._data
        if task.name not in self._sets:
            self._sets[task.name] = TaskScores(
                task, data.task_feature_lengths, data.split, data.use_cached_tasks, self._number
            )
        metrics, rows = self._sets[task.name](self._predictor, parameters)
        lines = [json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows]
        file = RunFolder(self._folder).evaluation.predictions_of(task.name, data.split, step)
        run_on_first(lambda: self._write_lines(file, lines))
        self._write(RecordKind.GENERATED, step, task.name, metrics, {"examples": len(rows)})

    def _write(
        self, kind: RecordKind, step: int, task: str, metrics: dict[str, float], more: Any = None
    ) -> None:
        values = {"task": task, **self._options[kind], **(more or {}), "metrics": metrics}
        run_on_all(lambda: self._writer.write(kind, step, 0.0, values))

    def _write_lines(self, file: Path, lines: list[str]) -> None:
        with explain_write_errors(file):
            atomic_write(file, "".join(lines))

    def _done(self, kind: RecordKind, step: int, task: str) -> dict[str, Any] | None:
        """What was written before, with the same options; as the first process knows it."""
        wanted = {"kind": kind, "step": step, "task": task, **self._options[kind]}
        return gather(self._writer.find(wanted) if is_first() else None)[0]
