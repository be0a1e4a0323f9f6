"""Scores of a task: what the model says, by the task's own postprocessor and metrics."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from switch_jax.data.configured_tasks import EVAL_SEED
from switch_jax.data.tensorflow_setup import seqio
from switch_jax.errors import UserError
from switch_jax.inference.predictor import Predictor


class TaskScores:
    """seqio's evaluation of one task, whose examples are read once."""

    def __init__(
        self,
        task: seqio.Task,
        lengths: Mapping[str, int],
        split: str = "validation",
        use_cached: bool = False,
        num_examples: int | None = None,
    ) -> None:
        """Reads the examples.

        Args:
          task: with metrics; registered, or a registered one with another vocabulary.
          lengths: tokens of 'inputs' and 'targets'.
          split: which examples.
          use_cached: read what seqio's cache script wrote.
          num_examples: only the first so many; None = all.
        """
        self._task = task
        self._outputs: dict[str, Any] = {}

        class Collect(seqio.Logger):
            """Keeps what the metrics were given."""

            def __call__(_, *, targets, inferences, **__) -> None:  # noqa: N805
                self._outputs = {"targets": targets, **(inferences or {})}

        with _registered(task) as name:
            self._evaluator = seqio.Evaluator(
                name,
                seqio.EncDecFeatureConverter(pack=False),
                eval_split=split,
                use_cached=use_cached,
                seed=EVAL_SEED,
                sequence_length=lengths,
                num_examples=num_examples,
                logger_cls=[Collect],
                log_dir="unused",
                async_compute_metrics=False,
            )
        (self._examples,) = self._evaluator.cached_task_datasets.values()
        self.number = len(self._examples)

    def __call__(
        self, predictor: Predictor, parameters: Any
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Decodes or scores as the metrics need it.

        Returns:
          Each metric's value, and for each example its 'inputs' as text, and as the metrics got
          them 'targets' and the model's 'prediction' or 'score'.

        Raises:
          UserError: a metric fails, or is no number.
        """

        def predict(dataset: Any) -> tuple[list, dict[str, list]]:
            found = list(predictor.predict(parameters, self._ids(dataset)))
            tokens = [(i, prediction.tokens.tolist()) for i, prediction in enumerate(found)]
            return tokens, {"scores": [prediction.score for prediction in found]}

        def score(dataset: Any) -> list[tuple[int, float]]:
            return list(enumerate(predictor.score(parameters, self._ids(dataset))))

        try:
            metrics, _ = self._evaluator.evaluate(
                compute_metrics=True,
                predict_fn=lambda dataset: predict(dataset)[0],
                score_fn=score,
                predict_with_aux_fn=predict,
            )
        except UserError:
            raise
        except Exception as error:  # anything that a metric of the user's may raise
            cause = error.__cause__ or error  # seqio's own words hide the kind of it
            reason = f"{type(cause).__name__} {cause}".splitlines()[0]
            raise UserError(f"{self._task.name} cannot be scored: {reason}") from error
        (values,) = metrics.result().values()
        return _numbers(values, self._task.name), self._rows()

    def _ids(self, dataset: Any) -> Iterator[dict[str, np.ndarray]]:
        """Inputs and targets without their padding, with a bar."""
        examples = tqdm(
            dataset.as_numpy_iterator(), self._task.name, self.number, unit="example", leave=False
        )
        for _, features in examples:
            yield {
                "inputs": np.trim_zeros(features["encoder_input_tokens"], "b"),
                "targets": np.trim_zeros(features["decoder_target_tokens"], "b"),
            }

    def _rows(self) -> list[dict[str, Any]]:
        decode: Callable = self._task.output_features["inputs"].vocabulary.decode
        names = [name for name in ("targets", "prediction", "score") if self._outputs.get(name)]
        columns = [self._outputs[name] for name in names]
        return [
            {"inputs": decode(example["inputs"].tolist()), **dict(zip(names, values, strict=True))}
            for example, *values in zip(self._examples.as_numpy_iterator(), *columns, strict=True)
        ]


@contextlib.contextmanager
def _registered(task: seqio.Task) -> Iterator[str]:
    """A name by which seqio finds the task, for as long as this is needed."""
    if task.name in seqio.TaskRegistry.names() and seqio.TaskRegistry.get(task.name) is task:
        yield task.name
        return
    name = f"{task.name}_with_another_vocabulary"
    seqio.TaskRegistry.add_provider(name, task)
    try:
        yield name
    finally:
        seqio.TaskRegistry.remove(name)


def _numbers(metrics: Mapping[str, Any], task: str) -> dict[str, float]:
    numbers = {}
    for name, value in metrics.items():
        value = getattr(value, "value", value)
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError) as error:
            raise UserError(f"{task}: its metric {name!r} is no number: {value!r}") from error
    return numbers
