"""Toy tasks whose rows can be written down by hand."""

import gzip

import numpy as np
import pytest

from switch_jax.tasks.english import read_lines
from switch_jax.utils.tensorflow_setup import seqio, tf
from tests.data.helpers import (  # noqa: F401
    features,
    folders_as_before,
    lines,
    parse,
    register,
    text_of,
)

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


def _emptied(example):
    return {name: ids[:0] for name, ids in example.items()}


def _short_ones_emptied(example):
    keep = tf.cast(tf.size(example["inputs"]) > 4, tf.int32)
    return {**example, "inputs": example["inputs"][: keep * tf.size(example["inputs"])]}


STEPS = {
    "toy_pairs": lambda ds: ds,
    "toy_long": lambda ds: ds.filter(lambda ex: tf.size(ex["inputs"]) > 4),
    "toy_none": lambda ds: ds.filter(lambda ex: tf.size(ex["inputs"]) > 10),
    "toy_some_empty": lambda ds: ds.map(_short_ones_emptied),
    "toy_empty": lambda ds: ds.map(_emptied),
}


@pytest.fixture(scope="session", autouse=True)
def toy_tasks():
    """Tasks made from PAIRS, and a mixture.

    `toy_pairs` has all pairs, `toy_long` the second and the fourth, `toy_none` none.
    `toy_some_empty` has all pairs, but inputs only in those of `toy_long`; `toy_empty` has all
    pairs without tokens. `toy_mixture` mixes `toy_pairs` and `toy_long`.
    """
    for name, step in STEPS.items():
        seqio.TaskRegistry.add(
            name,
            source=seqio.FunctionDataSource(_pairs, splits=["train", "validation"]),
            preprocessors=[seqio.CacheDatasetPlaceholder(), step],
            output_features=features(seqio.PassThroughVocabulary(size=10, eos_id=1)),
            metric_fns=[],
        )
    seqio.MixtureRegistry.add("toy_mixture", ["toy_pairs", "toy_long"], default_rate=1.0)
    yield
    seqio.MixtureRegistry.remove("toy_mixture")
    for name in STEPS:
        seqio.TaskRegistry.remove(name)


@seqio.map_over_dataset(num_seeds=1)
def _noised(example, seed):
    noise = tf.random.stateless_uniform([1], seed, 2, 10**9, tf.int32)
    return {"inputs": example["inputs"], "targets": noise}


@pytest.fixture
def numbers(tmp_path, register):  # noqa: F811
    """Tasks of 60 examples [n], n = 2 to 61, in one file, and in six or six archives of 10 each."""
    (tmp_path / "whole.txt").write_text(text_of(range(2, 62)))
    for i in range(6):
        text = text_of(range(2 + 10 * i, 12 + 10 * i))
        (tmp_path / f"part{i}.txt").write_text(text)
        (tmp_path / f"part{i}.gz").write_bytes(gzip.compress(text.encode()))
    register("numbers_1", lines(tmp_path / "whole.txt"))
    register("numbers_6", lines(tmp_path / "part*.txt"))
    archives = seqio.FileDataSource(read_lines, {"train": str(tmp_path / "part*.gz")})
    register("numbers_zip", archives)
    register("numbers_noise", lines(tmp_path / "whole.txt"), [parse, _noised])
    register.mixture("numbers_mixed", [("numbers_1", 3.0), ("numbers_noise", 1.0)])
