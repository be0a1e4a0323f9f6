"""Evaluation of a task by seqio: the task's own postprocessor and metrics."""

import contextlib
import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from switch_jax.config import DataConfig
from switch_jax.data.batch import Example
from switch_jax.data.configured_tasks import OpenedTasks, in_order, ordered_dataset
from switch_jax.data.reading import READ_ERRORS
from switch_jax.errors import UserError
from switch_jax.fields import short_repr
from switch_jax.inference.predictor import Predictor
from switch_jax.tensorflow_setup import seqio, tf

_EXAMPLES_CHECKED = 2  # on which a metric is called at the start


class TaskEvaluator:
    """A `seqio.Evaluator` of one task, which reads the examples once."""

    def __init__(
        self, task: seqio.Task, config: DataConfig, num_examples: int | None = None
    ) -> None:
        """Reads the examples.

        Args:
          task: a task with metrics: a registered one, or a copy of one with another vocabulary.
          config: which examples, and their lengths.
          num_examples: evaluate only this many, the first ones; None = all.

        Raises:
          UserError: the examples cannot be read, see `data.reading.read_examples`.
          TransientError: the storage failed.
        """
        self._task, lengths = task, config.task_feature_lengths
        self._outputs: dict[str, Any] = {}

        class Collect(seqio.Logger):
            """Keeps the targets and the inferences that the metrics get."""

            def __call__(_, *, targets, inferences, **__) -> None:  # noqa: N805
                self._outputs = {"targets": targets, **(inferences or {})}

        def examples(split: str, shuffle_files: bool, seed: Any = None) -> tf.data.Dataset:
            return ordered_dataset(task, config, lengths)

        # seqio itself would read files of buckets by TensorFlow's client.
        source = seqio.FunctionDataSource(examples, splits=[config.split])
        try:
            with _registered(task.replace(source=source, preprocessors=[])) as name:
                self._evaluator = seqio.Evaluator(
                    name,
                    seqio.EncDecFeatureConverter(pack=False),
                    eval_split=config.split,
                    sequence_length=lengths,
                    num_examples=num_examples,
                    logger_cls=[Collect],
                    log_dir="unused",
                    async_compute_metrics=False,
                )
        except READ_ERRORS:
            # Read once more, by what finds the damage and says where it is.
            for _ in in_order(task, config):
                pass
            raise
        (self._examples,) = self._evaluator.cached_task_datasets.values()
        self.num_examples = len(self._examples)

    def evaluate(
        self, predictor: Predictor, parameters: Any
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Decodes the inputs or scores the targets, as the metrics need it.

        Returns:
          The value of each metric; and for each example its 'inputs' as text and, as the metrics
          got them, its 'targets' and the model's 'prediction' or 'score'.

        Raises:
          UserError: a metric raises an exception, or its value is not a number.
        """

        def predict_with_scores(dataset: Any) -> tuple[list, dict[str, list]]:
            predictions = list(predictor.predict(parameters, self._ids(dataset)))
            tokens = [(i, prediction.tokens.tolist()) for i, prediction in enumerate(predictions)]
            return tokens, {"scores": [prediction.score for prediction in predictions]}

        def score(dataset: Any) -> list[tuple[int, float]]:
            return list(enumerate(predictor.score(parameters, self._ids(dataset))))

        try:
            metrics, _ = self._evaluator.evaluate(
                compute_metrics=True,
                predict_fn=lambda dataset: predict_with_scores(dataset)[0],
                score_fn=score,
                predict_with_aux_fn=predict_with_scores,
            )
        except UserError:
            raise
        except Exception as error:  # a user's metric may raise any exception
            cause = error.__cause__ or error  # seqio wraps it in one of its own
            reason = f"{type(cause).__name__} {cause}".splitlines()[0]
            raise UserError(f"{self._task.name} cannot be scored: {reason}") from error
        (values,) = metrics.result().values()
        return _as_floats(values, self._task.name), self._rows()

    @functools.cached_property
    def majority_baseline(self) -> dict[str, float]:
        """The task's metrics if every prediction were the most frequent target.

        It is there after `evaluate`. Empty where no target occurs twice, or targets are no single
        values, and of the metrics of predictions alone; a metric that such predictions have none
        of, as a correlation, is left out.
        """
        targets = self._outputs["targets"]
        values: dict[str, Any] = {}
        try:
            most_frequent = Counter(targets).most_common(1)
        except TypeError:  # lists or dicts
            return {}
        for target, count in most_frequent:  # one, or none of no targets
            for metric in self._task.predict_metric_fns if count > 1 else ():
                with contextlib.suppress(Exception):  # a user's metric may raise any exception
                    values |= metric(targets, [target] * len(targets))
        floats = _as_floats(values, self._task.name)
        return {name: value for name, value in floats.items() if math.isfinite(value)}

    def _ids(self, dataset: Any) -> Iterator[dict[str, np.ndarray]]:
        """Inputs and targets without their padding; shows a progress bar on a terminal."""
        examples = tqdm(
            dataset.as_numpy_iterator(),
            self._task.name,
            self.num_examples,
            unit="example",
            leave=False,
            disable=None,  # where there is no terminal
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
    """The name under which seqio finds the task within this context."""
    name = f"{task.name}_in_order"
    seqio.TaskRegistry.add_provider(name, task)
    try:
        yield name
    finally:
        seqio.TaskRegistry.remove(name)


def check_metrics(opened: OpenedTasks) -> None:
    """Calls each metric of the tasks on a few targets, as if the model had predicted them.

    Raises:
      UserError: a metric has other arguments than seqio's, or returns no dict of numbers.
    """
    for task in opened:
        try:
            of_predictions, of_scores = task.predict_metric_fns, task.score_metric_fns
        except ValueError as error:
            raise UserError(f"{task.name}: {error}") from error
        if of_predictions or of_scores:
            examples = [*itertools.islice(in_order(task, opened.config), _EXAMPLES_CHECKED)]
            for metric in of_predictions:
                _check_metric(metric, task, examples, lambda targets: targets)
            for metric in of_scores:
                _check_metric(metric, task, examples, lambda targets: [-1.0] * len(targets))


def _check_metric(
    metric: Callable[..., Any],
    task: seqio.Task,
    examples: Sequence[Example],
    outputs: Callable[[list], list],
) -> None:
    """Raises UserError if a metric returns no dict of numbers; `outputs`: by the targets."""
    decode = task.output_features["targets"].vocabulary.decode
    try:
        targets = [
            task.postprocess_fn(decode(e["targets"].tolist()), example=e, is_target=True)
            for e in examples
        ]
        values = metric(targets, outputs(targets))
    except Exception:  # a user's metric may need more examples, or other predictions
        return
    if not isinstance(values, Mapping):
        name = getattr(metric, "__name__", repr(metric))
        raise UserError(
            f"{task.name}: its metric function {name} returns {short_repr(values)}: write a dict "
            "of numbers by name, as {'accuracy': 50.0}"
        )
    _as_floats(values, task.name)


def average_of_tasks(metrics: Mapping[str, Mapping[str, float | None]]) -> float:
    """The mean over tasks of each task's mean metric, as GLUE and SuperGLUE define their scores.

    The two validation sets of MNLI, `..mnli_matched..` and `..mnli_mismatched..`, count as one task
    with the mean of both, as in `t5.evaluation.eval_utils.compute_avg_glue`.

    A metric without a number, as the correlation with constant predictions, counts as 0: averages
    of several checkpoints are over the same metrics.

    Args:
      metrics: values by name, of each task by its name; None and NaN are no number.

    Returns:
      NaN where no task has a metric.
    """
    sets: dict[str, list[np.floating]] = {}
    for name, values in metrics.items():
        task = name.replace("mnli_mismatched", "mnli_matched")
        if values:
            numbers = [0.0 if x is None or math.isnan(x) else x for x in values.values()]
            sets.setdefault(task, []).append(np.mean(numbers))
    return float(np.mean([np.mean(means) for means in sets.values()])) if sets else math.nan


def _as_floats(metrics: Mapping[str, Any], task: str) -> dict[str, float]:
    """The values, NaN for None; raises UserError if one is neither that nor a number."""
    floats = {}
    for name, value in metrics.items():
        value = getattr(value, "value", value)
        try:
            floats[name] = math.nan if value is None else float(value)
        except (TypeError, ValueError) as error:
            raise UserError(f"{task}: its metric {name!r} is not a number: {value!r}") from error
    return floats
