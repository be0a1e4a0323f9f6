"""Predictions or scores for the records of a file or the examples of a task."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from switch_jax.data.batch import Example
from switch_jax.data.configured_tasks import OpenedTasks, in_order
from switch_jax.data.tensorflow_setup import seqio
from switch_jax.errors import UserError
from switch_jax.inference.input_records import Record, as_example, read_records
from switch_jax.inference.predictor import Predictor


class InferenceExample(NamedTuple):
    """An example as text, which is repeated in the output, and as ids, which the model takes."""

    text: Record
    ids: Example


def examples_of_file(
    path: str, vocabularies: Mapping[str, seqio.Vocabulary], lengths: Mapping[str, int]
) -> Iterator[InferenceExample]:
    """The records of a file, see `input_records.read_records`."""
    for record in read_records(path):
        yield InferenceExample(record, as_example(record, vocabularies, lengths))


def examples_of_task(opened: OpenedTasks) -> Iterator[InferenceExample]:
    """The examples of the split of a task, or of each task of a mixture, in their order."""
    for task in opened:
        features = task.output_features
        for example in in_order(task, opened.config):
            ids = {name: np.asarray(example[name], np.int32) for name in ("inputs", "targets")}
            text = {name: features[name].vocabulary.decode(i.tolist()) for name, i in ids.items()}
            yield InferenceExample(text, ids)


def predictions(
    predictor: Predictor,
    parameters: Any,
    examples: Iterable[InferenceExample],
    vocabulary: seqio.Vocabulary,
    first_id: int = 0,
) -> Iterator[dict[str, Any]]:
    """Yields for each example 'inputs', 'prediction' as text, and 'score'.

    Args:
      predictor, parameters: the model.
      examples: what to decode.
      vocabulary: of the targets.
      first_id: index of the first example among all that are decoded, see `Predictor.predict`.
    """
    examples = list(examples)
    predicted = predictor.predict(parameters, (example.ids for example in examples), first_id)
    for example, prediction in zip(examples, predicted, strict=True):
        yield {
            "inputs": example.text["inputs"],
            "prediction": vocabulary.decode(prediction.tokens.tolist()),
            "score": _finite_or_none(prediction.score),
        }


def scores(
    predictor: Predictor,
    parameters: Any,
    examples: Iterable[InferenceExample],
    first_id: int = 0,
) -> Iterator[dict[str, Any]]:
    """Yields for each example 'inputs', 'targets' and 'score', the targets' log-probability.

    Args:
      predictor, parameters: the model.
      examples: what to score.
      first_id: index of the first example among all, for error messages.

    Raises:
      UserError: an example has no targets.
    """
    examples = list(examples)
    for number, example in enumerate(examples, start=first_id + 1):
        if "targets" not in example.text:
            raise UserError(
                f'record {number} has no \'targets\' to score: write {{"inputs": "...", '
                '"targets": "..."}, or leave out --score to predict them'
            )
    log_probs = predictor.score(parameters, (example.ids for example in examples))
    for example, log_prob in zip(examples, log_probs, strict=True):
        text = {name: example.text[name] for name in ("inputs", "targets")}
        yield {**text, "score": _finite_or_none(log_prob)}


def _finite_or_none(score: float) -> float | None:
    """None for infinities and NaN, which JSON does not have."""
    return score if math.isfinite(score) else None
