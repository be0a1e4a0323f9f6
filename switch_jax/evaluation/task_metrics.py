"""Evaluation by decoding: the metrics that seqio's tasks have, of the model's predictions."""

import contextlib
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from switch_jax.config.stack import StackConfig
from switch_jax.data.catalogue.configured_tasks import OpenedTasks, ordered_examples
from switch_jax.data.packing import Example
from switch_jax.inference.predictor import Predictor
from switch_jax.utils.errors import UserError
from switch_jax.utils.fields import short_repr
from switch_jax.utils.tensorflow_setup import seqio

_EXAMPLES_CHECKED = 2  # on which a metric is called at the start
_Output = seqio.metrics.ModelOutputType


class TaskResult(NamedTuple):
    """The evaluation of a task.

    Attributes:
      metrics: by name; NaN where a metric has no number.
      majority_baseline: the same metrics if every prediction were the most frequent target, where
        they have a number. Empty where no target occurs twice, or targets are no single values,
        and of the metrics of predictions alone.
      rows: for each example its 'inputs' as text, if it has some, and, as the metrics got them, its
        'targets' and the model's 'prediction' or 'score'.
    """

    metrics: dict[str, float]
    majority_baseline: dict[str, float]
    rows: list[dict[str, Any]]


class DecodingEvaluation:
    """Decodes the inputs of tasks that have metrics, or scores their targets, as the metrics need.

    The examples are read when they are first needed, and kept; every host reads all of them. The
    paper reports the best of such metrics over a fine-tuning (section 4.1). `tasks` are the names
    of those that have metrics.
    """

    def __init__(
        self, predictor: Predictor, opened: OpenedTasks, num_examples: int | None = None
    ) -> None:
        """Reads nothing yet. `num_examples`: of each task, the first ones; None: all."""
        self._predictor, self._config, self._num_examples = predictor, opened.config, num_examples
        self._with_metrics = {task.name: task for task in opened if task.metric_objs}
        self.tasks = list(self._with_metrics)
        self._examples: dict[str, list[Example]] = {}

    def __call__(self, name: str, parameters: Any) -> TaskResult:
        """The result of the task `name`, with parameters on the mesh; raises as `read_examples`.

        Also raises UserError where a metric raises, or returns no dict of numbers.
        """
        task = self._with_metrics[name]
        if name not in self._examples:
            in_all = ordered_examples(task, self._config, self._predictor.stacks)
            self._examples[name] = list(itertools.islice(in_all, self._num_examples))
        examples = self._examples[name]
        outputs = self._outputs(task, examples, parameters)
        try:
            metrics, given = _computed(task, examples, outputs)
        except UserError:
            raise
        except Exception as error:  # a user's metric may raise any exception
            reason = f"{type(error).__name__} {error}".splitlines()[0]
            raise UserError(f"{name} cannot be scored: {reason}") from error
        rows = _rows(task, examples, given)
        return TaskResult(metrics, _majority_baseline(task, given["targets"]), rows)

    def _outputs(
        self, task: seqio.Task, examples: Sequence[Example], parameters: Any
    ) -> dict[Any, Any]:
        """Computes the outputs of the model that the task's metrics take, by seqio's output type.

        N examples, and L tokens of each prediction: [N, L] int32 ids, with scores [N] as auxiliary
        values, and the targets' log-probabilities [N].
        """

        def shown() -> Iterator[Example]:
            """The examples, with a progress bar on a terminal."""
            yield from tqdm(examples, task.name, unit="example", leave=False, disable=None)

        wanted = {metric.model_output_type for metric in task.metric_objs}
        tokens = scores = of_targets = None
        if wanted & {_Output.PREDICTION, _Output.PREDICTION_WITH_AUX}:
            predictions = list(self._predictor.predict(parameters, shown()))
            tokens = np.array([prediction.tokens for prediction in predictions])
            scores = np.array([prediction.score for prediction in predictions])
        if _Output.SCORE in wanted:
            of_targets = np.array(list(self._predictor.score(parameters, shown())))
        return _by_output_type(tokens, scores, of_targets)


def _computed(
    task: seqio.Task, examples: Sequence[Example], outputs: Mapping[Any, Any]
) -> tuple[dict[str, float], dict[str, Any]]:
    """A task's metrics by name, and what they got; UserError where one gives no dict of numbers."""
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
        if not isinstance(new, Mapping):
            raise UserError(
                f"{task.name}: a metric function returns {short_repr(new)}: write a dict of "
                "numbers by name, as {'accuracy': 50.0}"
            )
        if twice := values.keys() & new.keys():
            raise UserError(f"{task.name}: two of its metrics are called {min(twice)}")
        values |= new
        given |= of_metric
    return _as_floats(values, task.name), given


def _rows(
    task: seqio.Task, examples: Sequence[Example], given: Mapping[str, Sequence[Any]]
) -> list[dict[str, Any]]:
    columns: dict[str, Sequence[Any]] = {}
    if examples and "inputs" in examples[0]:  # a task may declare them and have none
        decode: Callable = task.output_features["inputs"].vocabulary.decode
        columns["inputs"] = [decode(example["inputs"].tolist()) for example in examples]
    columns |= {n: given[n] for n in ("targets", "prediction", "score") if len(given.get(n, ()))}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _majority_baseline(task: seqio.Task, targets: Sequence[Any]) -> dict[str, float]:
    """Computes `TaskResult.majority_baseline`."""
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


def check_metrics(opened: OpenedTasks, stacks: Sequence[StackConfig]) -> dict[str, list[str]]:
    """Calls each metric on a few targets, as if predicted; UserError: it is none of seqio's.

    Returns the names of the metrics of each task that has some; [] where they are not known yet.
    """
    names: dict[str, list[str]] = {}
    for task in opened:
        try:
            if not task.metric_objs:
                continue
        except ValueError as error:
            raise UserError(f"{task.name}: {error}") from error
        names[task.name] = []
        in_all = ordered_examples(task, opened.config, stacks)
        examples = list(itertools.islice(in_all, _EXAMPLES_CHECKED))
        targets = (example["targets"].tolist() for example in examples)
        tokens = np.array([*itertools.zip_longest(*targets, fillvalue=0)]).T  # [N, L]
        scores = np.full(len(examples), -1.0)
        try:
            names[task.name] += _computed(task, examples, _by_output_type(tokens, scores, scores))[
                0
            ]
        except UserError:
            raise
        except Exception:  # a user's metric may need more examples, or other predictions
            continue
    return names


def _by_output_type(tokens: Any, scores: Any, of_targets: Any) -> dict[Any, Any]:
    """Returns outputs of the model by seqio's output type; see `DecodingEvaluation._outputs`."""
    return {
        _Output.PREDICTION: tokens,
        _Output.PREDICTION_WITH_AUX: (tokens, {"scores": scores}),
        _Output.SCORE: of_targets,
    }


def average_of_tasks(metrics: Mapping[str, Mapping[str, float | None]]) -> float:
    """The mean over tasks of each task's mean metric, as GLUE and SuperGLUE define their scores.

    `metrics` are values by name, of each task by its name. The two validation sets of MNLI,
    `..mnli_matched..` and `..mnli_mismatched..`, count as one task with the mean of both, as in
    `t5.evaluation.eval_utils.compute_avg_glue`. A metric without a number (None or NaN), as the
    correlation with constant predictions, counts as 0: averages of several checkpoints are over
    the same metrics. NaN where no task has a metric.
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
