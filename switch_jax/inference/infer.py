"""Predictions or scores for the records of a file or the examples of a task."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from switch_jax.data.batch import Example
from switch_jax.data.configured_tasks import OpenedTasks, in_order
from switch_jax.errors import UserError
from switch_jax.inference.input_records import Record, encode, read_records
from switch_jax.inference.predictor import Predictor
from switch_jax.tensorflow_setup import seqio


class InferenceExample(NamedTuple):
    """An example as text, which is repeated in the output, and as ids, which the model takes.

    Attributes:
      text: 'inputs' and, if there are any, 'targets'.
      ids: int32 [tokens] by feature.
      cut: how many tokens of the text are left out of the ids, by feature, where any are.
    """

    text: Record
    ids: Example
    cut: Mapping[str, int]


def examples_of_file(
    path: str, vocabularies: Mapping[str, seqio.Vocabulary], lengths: Mapping[str, int]
) -> Iterator[InferenceExample]:
    """The records of a file, see `input_records.read_records`."""
    for record in read_records(path):
        yield InferenceExample(record, *encode(record, vocabularies, lengths))


def examples_of_task(opened: OpenedTasks) -> Iterator[InferenceExample]:
    """The examples of the split of a task, or of each task of a mixture, in their order."""
    for task in opened:
        features = task.output_features
        for example in in_order(task, opened.config):
            ids = {name: np.asarray(example[name], np.int32) for name in ("inputs", "targets")}
            text = {name: features[name].vocabulary.decode(i.tolist()) for name, i in ids.items()}
            yield InferenceExample(text, ids, {})


def predictions(
    predictor: Predictor,
    parameters: Any,
    examples: Iterable[InferenceExample],
    vocabulary: seqio.Vocabulary,
    first_id: int = 0,
) -> Iterator[dict[str, Any]]:
    """Yields for each example 'inputs', 'prediction' as text, and 'score'; of a cut one 'cut', too.

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
            **_cut(example, ("inputs",)),
        }


def scores(
    predictor: Predictor,
    parameters: Any,
    examples: Iterable[InferenceExample],
    first_id: int = 0,
) -> Iterator[dict[str, Any]]:
    """Yields for each example 'inputs', 'targets' and 'score', the targets' log-probability.

    An example that is cut has 'cut', too.

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
        cut = _cut(example, text)
        yield {**text, "score": _finite_or_none(log_prob), **cut}


def _cut(example: InferenceExample, features: Iterable[str]) -> dict[str, Any]:
    """Under 'cut' the tokens that are left out of these features; nothing where none is."""
    cut = {name: example.cut[name] for name in features if name in example.cut}
    return {"cut": cut} if cut else {}


def _finite_or_none(score: float) -> float | None:
    """None for infinities and NaN, which JSON does not have."""
    return score if math.isfinite(score) else None
