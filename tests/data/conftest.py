"""Toy tasks whose rows can be written down by hand."""

import switch_jax.data  # noqa: F401, I001  first: TensorFlow starts quietly
import numpy as np
import pytest
import seqio
import tensorflow as tf

# Five (inputs, targets) pairs; every sequence ends with EOS, which is 1.
PAIRS = [
    ([7, 8, 5, 1], [3, 9, 1]),
    ([8, 4, 9, 3, 1], [4, 1]),
    ([6, 1], [2, 1]),
    ([2, 2, 2, 2, 2, 2, 1], [5, 5, 1]),
    ([3, 1], [6, 6, 6, 1]),
]


def _pairs(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
    del split, shuffle_files, seed
    spec = {key: tf.TensorSpec([None], tf.int32) for key in ("inputs", "targets")}
    rows = [{"inputs": np.int32(i), "targets": np.int32(t)} for i, t in PAIRS]
    return tf.data.Dataset.from_generator(lambda: rows, output_signature=spec)


def _register(name: str, *preprocessors) -> None:
    vocabulary = seqio.PassThroughVocabulary(size=10, eos_id=1)
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(_pairs, splits=["train", "validation"]),
        preprocessors=[seqio.CacheDatasetPlaceholder(), *preprocessors],
        output_features={key: seqio.Feature(vocabulary) for key in ("inputs", "targets")},
        metric_fns=[],
    )


def _emptied(example):
    return {name: ids[:0] for name, ids in example.items()}


def _short_ones_emptied(example):
    keep = tf.cast(tf.size(example["inputs"]) > 4, tf.int32)
    return {name: ids[: keep * tf.size(ids)] for name, ids in example.items()}


@pytest.fixture(scope="session", autouse=True)
def toy_tasks():
    """`toy_pairs`; `toy_long`, of it the second and the fourth; `toy_none`, nothing of it.

    `toy_some_empty`: all, those of `toy_long` alone with tokens; `toy_empty`: all, without tokens.
    """
    _register("toy_pairs")
    _register("toy_long", lambda ds: ds.filter(lambda ex: tf.size(ex["inputs"]) > 4))
    _register("toy_none", lambda ds: ds.filter(lambda ex: tf.size(ex["inputs"]) > 10))
    _register("toy_some_empty", lambda ds: ds.map(_short_ones_emptied))
    _register("toy_empty", lambda ds: ds.map(_emptied))
    seqio.MixtureRegistry.add("toy_mixture", ["toy_pairs", "toy_long"], default_rate=1.0)
    yield
    seqio.MixtureRegistry.remove("toy_mixture")
    for name in ("toy_pairs", "toy_long", "toy_none", "toy_some_empty", "toy_empty"):
        seqio.TaskRegistry.remove(name)
