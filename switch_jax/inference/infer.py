"""Predictions or scores for the records of a file or the examples of a task."""

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from switch_jax.data.batch import Example
from switch_jax.data.configured_tasks import OpenedTasks, in_order
from switch_jax.errors import UserError
from switch_jax.inference.input_records import TextExample
from switch_jax.inference.predictor import Predictor
from switch_jax.tensorflow_setup import seqio


def examples_of_task(opened: OpenedTasks) -> Iterator[TextExample]:
    """The examples of the split of a task, or of each task of a mixture, in their order."""
    for task in opened:
        features = task.output_features
        for example in in_order(task, opened.config):
            ids = {name: np.asarray(example[name], np.int32) for name in ("inputs", "targets")}
            text = {name: features[name].vocabulary.decode(i.tolist()) for name, i in ids.items()}
            yield TextExample(text, ids, {})


def predictions(
    predictor: Predictor,
    parameters: Any,
    examples: Iterable[TextExample],
    vocabulary: seqio.Vocabulary,
    first_id: int = 0,
) -> Iterator[dict[str, Any]]:
    """Yields for each example 'inputs', 'prediction' as text, and 'score'; of a cut one 'cut', too.

    The examples are read batch by batch.

    Args:
      predictor, parameters: the model.
      examples: what to decode.
      vocabulary: of the targets.
      first_id: index of the first example among all that are decoded, see `Predictor.predict`.
    """
    examples, read = itertools.tee(examples)
    predicted = predictor.predict(parameters, (example.ids for example in read), first_id)
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
    examples: Iterable[TextExample],
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

    def ids(examples: Iterable[TextExample]) -> Iterator[Example]:
        for number, example in enumerate(examples, start=first_id + 1):
            if "targets" not in example.text:
                raise UserError(
                    f'record {number} has no \'targets\' to score: write {{"inputs": "...", '
                    '"targets": "..."}, or leave out --score to predict them'
                )
            yield example.ids

    examples, read = itertools.tee(examples)
    log_probs = predictor.score(parameters, ids(read))
    for example, log_prob in zip(examples, log_probs, strict=True):
        text = {name: example.text[name] for name in ("inputs", "targets")}
        cut = _cut(example, text)
        yield {**text, "score": _finite_or_none(log_prob), **cut}


def _cut(example: TextExample, features: Iterable[str]) -> dict[str, Any]:
    """Under 'cut' the tokens that are left out of these features; nothing where none is."""
    cut = {name: example.cut[name] for name in features if name in example.cut}
    return {"cut": cut} if cut else {}


def _finite_or_none(score: float) -> float | None:
    """None for infinities and NaN, which JSON does not have."""
    return score if math.isfinite(score) else None
