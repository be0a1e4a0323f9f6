"""Evaluation of checkpoints of a run: what `switch_jax eval` and `switch_jax.evaluate` do."""

import sys
from typing import Any

import jax
from etils import epath

from switch_jax.checkpointing import chosen_step, find_checkpoint
from switch_jax.data.checks import check_examples, open_tasks
from switch_jax.data.sources import data_locations
from switch_jax.errors import FieldError
from switch_jax.evaluation.checkpoint_evaluator import CheckpointEvaluator
from switch_jax.evaluation.task_evaluator import check_metrics
from switch_jax.fields import Range
from switch_jax.inference.trained_model import TrainedModel
from switch_jax.run_folder import RunFolder
from switch_jax.runtime.processes import from_first, is_first


def evaluate_checkpoints(
    model: TrainedModel, checkpoint: str, max_examples: int | None
) -> list[dict[str, Any]]:
    """Evaluates a run on the tasks of its data config; prints progress to standard error.

    Args:
      model: the run.
      checkpoint: 'latest', 'best', 'all', or the number of a step.
      max_examples: see `CheckpointEvaluator`.

    Returns:
      The records, those that were there before included; see `CheckpointEvaluator.evaluate`.

    Raises:
      FieldError: `checkpoint` is none of these, or `max_examples` is out of range.
      UserError: there is no such checkpoint, a task cannot be read, or a metric returns no dict of
        numbers.
    """
    problem = None if max_examples is None else Range(1, 10**9).problem(max_examples)
    if problem:
        raise FieldError("max_examples", f"= {max_examples}: {problem}")
    steps = _steps(model.model_dir, checkpoint)
    opened = open_tasks(model.config.data)
    check_examples(opened)
    check_metrics(opened)
    records = []
    with jax.set_mesh(model.mesh):
        evaluator = CheckpointEvaluator(model, opened, max_examples)
        for step in steps:
            if step in from_first(RunFolder(model.model_dir).checkpoint_steps):
                settings = {**model.settings(step), "places": data_locations()}
                records += evaluator.evaluate(step, settings, _log)
            else:
                _log(f"the run has removed the checkpoint of step {step} meanwhile")
        evaluator.close()
    return records


def _steps(model_dir: epath.Path, checkpoint: str) -> list[int]:
    if checkpoint != "all":
        return [chosen_step(model_dir, checkpoint)]
    find_checkpoint(model_dir)  # raises UserError if there is none
    return from_first(RunFolder(model_dir).checkpoint_steps)


def _log(text: str) -> None:
    if is_first():
        print(text, file=sys.stderr, flush=True)
