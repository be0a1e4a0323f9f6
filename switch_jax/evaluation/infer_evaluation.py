"""Evaluation within a run by the tasks' own metrics, of text that the model generates."""

from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

from switch_jax.config import Config
from switch_jax.data.configured_tasks import OpenedTasks
from switch_jax.errors import UserError
from switch_jax.evaluation.task_evaluator import TaskEvaluator, average_of_tasks, check_metrics
from switch_jax.evaluation.teacher_forced import ALL
from switch_jax.inference.predictor import Predictor
from switch_jax.inference.trained_model import TrainedModel, decoding_config
from switch_jax.storage import storage_path


class InferEvaluation:
    """The validation sets that have metrics, decoded greedily; read once and kept.

    The metrics are seqio's, as `switch_jax eval` computes them, of the first
    `eval_steps * batch_size` examples of each set: the paper reports the best of them over a
    fine-tuning (section 4.1). Every host reads all examples.
    """

    def __init__(self, model: TrainedModel, opened: OpenedTasks) -> None:
        """Reads the examples; the programs are compiled when they are first used.

        Args:
          model: of the run, see `model_of_run`.
          opened: the validation sets.
        """
        run = model.config.run
        self._predictor, self._is_mixture = Predictor(model), len(opened.tasks) > 1
        self._evaluators = {
            task.name: TaskEvaluator(task, opened.config, run.eval_steps * run.batch_size)
            for task in opened
            if task.metric_objs
        }

    def __call__(
        self, parameters: Any, finished: Callable[[str], None]
    ) -> dict[str, dict[str, dict[str, float]]]:
        """By task "generated", its metrics, and "majority_baseline", see `TaskEvaluator`.

        Of a mixture there is also the task "all", whose 'average' is over its tasks.

        Args:
          parameters: of the model, on the mesh.
          finished: is called with the name of each task, since some take minutes.

        Raises:
          UserError: a metric cannot be computed, or is not a number.
        """
        found = {}
        for task, evaluator in self._evaluators.items():
            metrics, _ = evaluator.evaluate(self._predictor, parameters)
            found[task] = {
                "generated": metrics,
                "majority_baseline": evaluator.majority_baseline,
            }
            finished(task)
        if self._is_mixture:
            by_task = {task: metrics["generated"] for task, metrics in found.items()}
            found[ALL] = {"generated": {"average": average_of_tasks(by_task)}}
        return found


def model_of_run(config: Config, mesh: Mesh, parameters: Any) -> TrainedModel:
    """The model of a run under way, for inference.

    Args:
      config: the run.
      mesh: the devices.
      parameters: `ShapeDtypeStruct`s on the mesh.
    """
    folder = storage_path(config.run.model_dir, "MODEL_DIR")
    return TrainedModel(folder, config, mesh, parameters, decoding_config(config.data))


def check_infer_evaluation(opened: OpenedTasks) -> None:
    """Raises UserError where no task has metrics, or one does not fit; see `check_metrics`."""
    check_metrics(opened)
    if not any(task.metric_objs for task in opened):
        raise UserError(
            f"INFER_EVAL = True evaluates by the tasks' own metrics, and {', '.join(opened.names)} "
            "has none: set INFER_EVAL to False"
        )
