"""Predictions or scores for the records of a file or the examples of a task."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from switch_jax.config.stack import StackConfig
from switch_jax.data.catalogue.configured_tasks import OpenedTasks, ordered_examples
from switch_jax.data.catalogue.vocabularies import num_unknown
from switch_jax.data.packing import Example
from switch_jax.inference.input_records import TextExample, TextFeature, text_of
from switch_jax.inference.predictor import Predictor
from switch_jax.utils.errors import UserError


def task_examples(opened: OpenedTasks, stacks: Sequence[StackConfig]) -> Iterator[TextExample]:
    """The examples of a split, of a task or of each of a mixture, that a model's stacks read."""
    for task in opened:
        features = task.output_features
        for example in ordered_examples(task, opened.config, stacks):
            names: list[str] = [name for name in ("inputs", "targets") if name in example]
            ids = {name: np.asarray(example[name], np.int32) for name in names}
            text = {name: features[name].vocabulary.decode(i.tolist()) for name, i in ids.items()}
            unknown = {name: num_unknown(features[name].vocabulary, i) for name, i in ids.items()}
            yield TextExample(text, ids, {}, {name: n for name, n in unknown.items() if n})


def predict_or_score(
    predictor: Predictor,
    parameters: Any,
    examples: Iterable[TextExample],
    features: Mapping[str, TextFeature] | None,
    first_id: int = 0,
) -> Iterator[dict[str, Any]]:
    """Yields for each example 'inputs', 'prediction' and 'score'; or 'inputs', 'targets', 'score'.

    The score is a log-probability; None where it is not finite, since JSON has no such numbers. An
    example that is cut has 'cut', too: the tokens that are left out, by feature; one with unknown
    tokens has 'unknown': how many. Examples are read batch by batch; `first_id` is the index of the
    first one among all. With the `features` of texts targets are predicted; None: given
    targets are scored, UserError where an example has none.
    """
    examples, read = itertools.tee(examples)
    found: Iterable[tuple[np.ndarray | None, float]]
    if features is None:
        given = ["inputs", "targets"]
        found = ((None, x) for x in predictor.score(parameters, _to_score(read, first_id)))
    else:
        given = ["inputs"]
        found = predictor.predict(parameters, (example.ids for example in read), first_id)
    for example, (tokens, score) in zip(examples, found, strict=True):
        row: dict[str, Any] = {n: example.text[n] for n in given if n in example.text}
        if features is not None and tokens is not None:
            row["prediction"] = text_of(tokens, example.ids, features)
        row["score"] = score if math.isfinite(score) else None
        for key, counts in (("cut", example.cut), ("unknown", example.unknown)):
            if found_counts := {name: n for name, n in counts.items() if name in given}:
                row[key] = found_counts
        yield row


def _to_score(examples: Iterable[TextExample], first_id: int) -> Iterator[Example]:
    for number, example in enumerate(examples, start=first_id + 1):
        if "targets" not in example.text:
            raise UserError(
                f'record {number} has no \'targets\' to score: write {{"inputs": "...", '
                '"targets": "..."}'
            )
        yield example.ids
