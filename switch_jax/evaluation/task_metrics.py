"""Evaluation by decoding: the tasks' own metrics, which seqio has, of what the model predicts."""

import contextlib
import itertools
import math
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from switch_jax.data.batch import Example
from switch_jax.data.catalogue.configured_tasks import OpenedTasks, in_order
from switch_jax.inference.predictor import Predictor
from switch_jax.utils.errors import UserError
from switch_jax.utils.fields import short_repr
from switch_jax.utils.tensorflow_setup import seqio

_EXAMPLES_CHECKED = 2  # on which a metric is called at the start
_Output = seqio.metrics.ModelOutputType


class TaskResult(NamedTuple):
    """What was found of a task.

    Attributes:
      task: its name.
      metrics: by name; NaN where a metric has no number.
      majority_baseline: the same metrics if every prediction were the most frequent target. Empty
        where no target occurs twice, or targets are no single values, and of the metrics of
        predictions alone; a metric that such predictions have none of, as a correlation, is left
        out.
      rows: for each example its 'inputs' as text and, as the metrics got them, its 'targets' and
        the model's 'prediction' or 'score'.
    """

    task: str
    metrics: dict[str, float]
    majority_baseline: dict[str, float]
    rows: list[dict[str, Any]]


class DecodingEvaluation:
    """Decodes the inputs of tasks that have metrics, or scores their targets, as the metrics need.

    The examples are read when they are first needed, and kept; every host reads all of them. The
    paper reports the best of such metrics over a fine-tuning (section 4.1).
    """

    def __init__(
        self, predictor: Predictor, opened: OpenedTasks, num_examples: int | None = None
    ) -> None:
        """Reads nothing yet.

        Args:
          predictor: of the model.
          opened: the tasks; those without metrics are left out.
          num_examples: of each task, the first ones; None: all.
        """
        self._predictor, self._opened, self._num_examples = predictor, opened, num_examples
        self._examples: dict[str, list[Example]] = {}

    def __call__(
        self, parameters: Any, names: Container[str] | None = None
    ) -> Iterator[TaskResult]:
        """Yields the result of one task after the other, since some take minutes.

        Args:
          parameters: of the model, on the mesh.
          names: of the tasks to evaluate; None: all.

        Raises:
          UserError: the examples cannot be read, see `read_examples`; a metric raises
            an exception, or its value is not a number.
          TransientError: the storage failed.
        """
        for task in self._opened:
            if task.metric_objs and (names is None or task.name in names):
                yield self._evaluate(task, parameters)

    def _evaluate(self, task: seqio.Task, parameters: Any) -> TaskResult:
        if task.name not in self._examples:
            in_all = in_order(task, self._opened.config)
            self._examples[task.name] = list(itertools.islice(in_all, self._num_examples))
        examples = self._examples[task.name]
        outputs = self._outputs(task, examples, parameters)
        try:
            values, given = _computed(task, examples, outputs)
        except Exception as error:  # a user's metric may raise any exception
            reason = f"{type(error).__name__} {error}".splitlines()[0]
            raise UserError(f"{task.name} cannot be scored: {reason}") from error
        metrics = _as_floats(values, task.name)
        rows = _rows(task, examples, given)
        return TaskResult(task.name, metrics, _majority_baseline(task, given["targets"]), rows)

    def _outputs(
        self, task: seqio.Task, examples: Sequence[Example], parameters: Any
    ) -> dict[Any, Any]:
        """What the task's metrics take of the model, by seqio's kind of output.

        N examples, and L tokens of each prediction: [N, L] int32 ids, with scores [N] as auxiliary
        values, and the targets' log-probabilities [N].
        """

        def shown() -> Iterator[Example]:
            """The examples, with a progress bar on a terminal."""
            yield from tqdm(examples, task.name, unit="example", leave=False, disable=None)

        wanted = {metric.model_output_type for metric in task.metric_objs}
        found: dict[Any, Any] = {}
        if wanted & {_Output.PREDICTION, _Output.PREDICTION_WITH_AUX}:
            predictions = list(self._predictor.predict(parameters, shown()))
            tokens = np.array([prediction.tokens for prediction in predictions])
            scores = np.array([prediction.score for prediction in predictions])
            found[_Output.PREDICTION] = tokens
            found[_Output.PREDICTION_WITH_AUX] = tokens, {"scores": scores}
        if _Output.SCORE in wanted:
            found[_Output.SCORE] = np.array(list(self._predictor.score(parameters, shown())))
        return found


def _computed(
    task: seqio.Task, examples: Sequence[Example], outputs: Mapping[Any, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of a task's metrics by name, and what they got, as 'targets' and 'prediction'."""
    values: dict[str, Any] = {}
    given: dict[str, Any] = {"targets": []}
    for metric in task.metric_objs:
        output, features = outputs[metric.model_output_type], task.output_features
        computed = metric.from_model_output(examples, output, features)
        if isinstance(computed, seqio.metrics.CollectingMetric):
            new, of_metric = computed.actual_compute(
                examples, features, cached_targets=given["targets"]
            )
        else:
            new = computed.compute()
            of_metric = getattr(computed, "targets_and_inferences", {})
        if twice := values.keys() & new.keys():
            raise ValueError(f"two of its metrics are called {min(twice)}")
        values |= new
        given |= of_metric
    return values, given


def _rows(
    task: seqio.Task, examples: Sequence[Example], given: Mapping[str, Sequence[Any]]
) -> list[dict[str, Any]]:
    decode: Callable = task.output_features["inputs"].vocabulary.decode
    inputs = [decode(example["inputs"].tolist()) for example in examples]
    columns: dict[str, Sequence[Any]] = {"inputs": inputs}
    columns |= {n: given[n] for n in ("targets", "prediction", "score") if len(given.get(n, ()))}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _majority_baseline(task: seqio.Task, targets: Sequence[Any]) -> dict[str, float]:
    """See `TaskResult`."""
    values: dict[str, Any] = {}
    try:
        most_frequent = Counter(targets).most_common(1)
    except TypeError:  # lists or dicts
        return {}
    for target, count in most_frequent:  # one, or none of no targets
        for metric in task.predict_metric_fns if count > 1 else ():
            with contextlib.suppress(Exception):  # a user's metric may raise any exception
                values |= metric(targets, [target] * len(targets))
    floats = _as_floats(values, task.name)
    return {name: value for name, value in floats.items() if math.isfinite(value)}


def check_infer_evaluation(opened: OpenedTasks) -> None:
    """Raises UserError where no task has metrics, or one does not fit; see `check_metrics`."""
    check_metrics(opened)
    if not any(task.metric_objs for task in opened):
        raise UserError(
            f"INFER_EVAL = True evaluates by the tasks' own metrics, and {', '.join(opened.names)} "
            "has none: set INFER_EVAL to False"
        )


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
