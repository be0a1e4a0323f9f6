"""Predictions, or scores, for all records of a file or all examples of a task."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from switch_jax.data.batch import Example
from switch_jax.data.configured_tasks import OpenedTasks, in_order
from switch_jax.data.tensorflow_setup import seqio
from switch_jax.errors import UserError
from switch_jax.inference.predictor import Predictor
from switch_jax.inference.input_records import Record, as_example, read_records


class Item(NamedTuple):
    """What is asked: as text, which is written out again, and as ids, which the model takes."""

    text: Record
    ids: Example


def items_of_file(
    path: str, vocabularies: Mapping[str, seqio.Vocabulary], lengths: Mapping[str, int]
) -> Iterator[Item]:
    """The records of a file, see `records.read_records`."""
    for record in read_records(path):
        yield Item(record, as_example(record, vocabularies, lengths))


def items_of_task(opened: OpenedTasks) -> Iterator[Item]:
    """The examples of the split of a task, or of each task of a mixture, in their order."""
    for task in opened:
        features = task.output_features
        for example in in_order(task, opened.config):
            ids = {name: np.asarray(example[name], np.int32) for name in ("inputs", "targets")}
            text = {name: features[name].vocabulary.decode(i.tolist()) for name, i in ids.items()}
            yield Item(text, ids)


def predictions(
    predictor: Predictor,
    parameters: Any,
    items: Iterable[Item],
    vocabulary: seqio.Vocabulary,
    first: int = 0,
) -> Iterator[dict[str, Any]]:
    """For each item 'inputs', 'prediction' as text, and 'score'; see `Predictor.predict`.

    Args:
      predictor, parameters: the model.
      items: what is asked.
      vocabulary: of the targets.
      first: number of the first item in all that is asked.
    """
    items = list(items)
    found = predictor.predict(parameters, (item.ids for item in items), first)
    for item, prediction in zip(items, found, strict=True):
        text = vocabulary.decode(prediction.tokens.tolist())
        yield {
            "inputs": item.text["inputs"],
            "prediction": text,
            "score": _finite(prediction.score),
        }


def scores(
    predictor: Predictor, parameters: Any, items: Iterable[Item], first: int = 0
) -> Iterator[dict[str, Any]]:
    """For each item 'inputs', 'targets' and 'score', the log-probability of the targets.

    Raises:
      UserError: an item has no targets.
    """
    items = list(items)
    for number, item in enumerate(items, start=first + 1):
        if "targets" not in item.text:
            raise UserError(
                f'record {number} has no \'targets\' to score: write {{"inputs": "...", '
                '"targets": "..."}, or leave out --score to predict them'
            )
    found = predictor.score(parameters, (item.ids for item in items))
    for item, score in zip(items, found, strict=True):
        text = {name: item.text[name] for name in ("inputs", "targets")}
        yield {**text, "score": _finite(score)}


def _finite(score: float) -> float | None:
    """JSON has no infinities, and no NaN."""
    return score if math.isfinite(score) else None
