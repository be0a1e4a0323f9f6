"""Hand-made records through a task and its score; shipped files, and rates of mixtures."""

import gzip
from collections.abc import Sequence
from typing import Any

import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from switch_jax.data.catalogue.registry import get_mixture_or_task, get_tasks, mixing_rates
from switch_jax.data.catalogue.vocabularies import with_vocabulary
from switch_jax.tasks.english import DATA
from switch_jax.tasks.named_vocabularies import BYTE
from tests.data.helpers import in_full

Record = dict[str, Any]
LONG = {"inputs": 4096, "targets": 512}  # nothing is cut off


def shipped(file: str) -> list[str]:
    """The lines of a gzipped text that comes with the library."""
    with gzip.open(DATA / file, "rt", encoding="utf-8") as lines:
        return [line.rstrip("\n") for line in lines]


def rates_of(mixture: str) -> dict[str, float]:
    """The rates of a mixture by task."""
    tasks = get_tasks(mixture)
    rates = mixing_rates(mixture, tasks)
    return {task.name: rate for task, rate in zip(tasks, rates, strict=True)}


def in_schema(data_set: str, records: Sequence[Record]) -> tf.data.Dataset:
    """The records as TFDS would read them from the prepared data set; its schema is checked."""
    features = tfds.builder(data_set).info.features
    encoded = [features.encode_example(in_full(features, record)) for record in records]
    written = list(map(features.serialize_example, encoded))
    return tf.data.Dataset.from_tensor_slices(written).map(features.deserialize_example)


def preprocess(name: str, records: Sequence[Record], data_set: str | None = None) -> list[Record]:
    """The task's examples of these records, written in bytes, with all that the score needs.

    The records are in the schema of `data_set`, in TFDS; None = the one that the task reads.
    """
    task = with_vocabulary(get_mixture_or_task(name), "byte")
    dataset = in_schema(data_set or task.source.tfds_dataset.name, records)
    dataset = task.preprocess_precache(dataset, seed=0)
    dataset = task.preprocess_postcache(dataset, LONG, seed=0)
    return list(dataset.as_numpy_iterator())


def texts(examples: Sequence[Record]) -> list[tuple[str, str]]:
    """(Inputs, targets) as the model sees them, decoded; each must end with EOS."""
    for example in examples:
        assert example["inputs"][-1] == example["targets"][-1] == BYTE.eos_id
    return [
        (BYTE.decode(ex["inputs"][:-1].tolist()), BYTE.decode(ex["targets"][:-1].tolist()))
        for ex in examples
    ]


def score(name: str, examples: Sequence[Record], predictions: Sequence[str]) -> dict[str, float]:
    """All metrics of the task, computed in the way of `seqio.Evaluator`."""
    task = get_mixture_or_task(name)
    assert isinstance(task, seqio.Task)
    targets = [
        task.postprocess_fn(ex["targets_pretokenized"].decode(), example=ex, is_target=True)
        for ex in examples
    ]
    predicted = [
        task.postprocess_fn(prediction, example=ex, is_target=False)
        for prediction, ex in zip(predictions, examples, strict=True)
    ]
    results: dict[str, float] = {}
    for metric in task.metric_fns:
        results |= metric(targets, predicted)
    return results


def restore(inputs: Sequence[int], targets: Sequence[int], first_sentinel: int) -> list[int]:
    """Undoes span corruption: the targets' spans go back where the inputs have their sentinels."""
    assert inputs[-1] == targets[-1] == 1  # EOS
    spans: dict[int, list[int]] = {}
    for token in targets[:-1]:
        if token >= first_sentinel:
            span = spans[token] = []
        else:
            span.append(token)
    tokens = []
    for token in inputs[:-1]:
        tokens += spans.pop(token) if token >= first_sentinel else [token]
    assert not spans
    return tokens
