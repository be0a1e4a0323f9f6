"""Toy tasks whose rows can be written down by hand."""

import numpy as np
import pytest

from switch_jax.tensorflow_setup import seqio, tf
from tests.data.number_tasks import FEATURES, parse

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
    return {**example, "inputs": example["inputs"][: keep * tf.size(example["inputs"])]}


@pytest.fixture(scope="session", autouse=True)
def toy_tasks():
    """Tasks made from PAIRS, and a mixture.

    `toy_pairs` has all pairs, `toy_long` the second and the fourth, `toy_none` none.
    `toy_some_empty` has all pairs, but inputs only in those of `toy_long`; `toy_empty` has all
    pairs without tokens. `toy_mixture` mixes `toy_pairs` and `toy_long`.
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


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """Tasks of 60 examples [n], n = 2 to 61, in one file and in six of 10 lines each."""
    folder = tmp_path_factory.mktemp("numbers")
    for i in range(6):
        rows = "".join(f"{n}\n" for n in range(2 + 10 * i, 12 + 10 * i))
        (folder / f"part{i}.txt").write_text(rows)
    (folder / "whole.txt").write_text("".join(f"{n}\n" for n in range(2, 62)))

    @seqio.map_over_dataset(num_seeds=1)
    def noised(example, seed):
        noise = tf.random.stateless_uniform([1], seed, 2, 10**9, tf.int32)
        return {"inputs": example["inputs"], "targets": noise}

    for name, pattern, steps in (
        ("numbers_1", "whole.txt", [parse]),
        ("numbers_6", "part*.txt", [parse]),
        ("numbers_noise", "whole.txt", [parse, noised]),
    ):
        seqio.TaskRegistry.add(
            name,
            source=seqio.TextLineDataSource({"train": str(folder / pattern)}),
            preprocessors=steps,
            output_features=FEATURES,
        )
    seqio.MixtureRegistry.add("numbers_mixed", [("numbers_1", 3.0), ("numbers_noise", 1.0)])
    yield
    seqio.MixtureRegistry.remove("numbers_mixed")
    for name in ("numbers_1", "numbers_6", "numbers_noise"):
        seqio.TaskRegistry.remove(name)
