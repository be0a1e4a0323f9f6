"""What several tests of the data share: tasks of numbers, opened tasks, and data sets of TFDS."""

import dataclasses

import numpy as np
import pytest
import tensorflow_datasets as tfds

from switch_jax.config import DataConfig
from switch_jax.data.catalogue.checks import open_tasks
from switch_jax.data.catalogue.configured_tasks import OpenedTasks
from switch_jax.data.eval_batches import eval_batches
from switch_jax.data.reading.position import Cursor
from switch_jax.data.task_examples import TaskExamples
from switch_jax.data.train_batches import TrainBatches
from switch_jax.utils.errors import UserError
from switch_jax.utils.tensorflow_setup import seqio, tf
from tests.trainer.helpers import STACKS

NUMBERS = seqio.PassThroughVocabulary(size=10**9, eos_id=1)
ANLI_RECORD = {"context": "It rains.", "hypothesis": "It snows.", "label": "c"}


def features(vocabulary, **options):
    """Inputs and targets of a vocabulary."""
    return {name: seqio.Feature(vocabulary, **options) for name in ("inputs", "targets")}


FEATURES = features(NUMBERS, add_eos=False)


@seqio.map_over_dataset
def parse(line):
    """A line of text, the number n, as the example with inputs [n] and targets [n]."""
    number = tf.strings.to_number(line, tf.int32)[None]
    return {"inputs": number, "targets": number}


@seqio.map_over_dataset
def as_pair(example):
    """Makes inputs and targets of an example's 'number'."""
    number = tf.cast(example["number"][None], tf.int32)
    return {"inputs": number, "targets": number}


@seqio.map_over_dataset
def as_both(line):
    """The line as inputs and as targets."""
    return {"inputs": line, "targets": line}


@pytest.fixture
def register():
    """Registers tasks until the end of the test, and mixtures by `register.mixture`."""
    tasks, mixtures = [], []

    def add(name, source, steps=(parse,), output_features=FEATURES, **options):
        tasks.append(name)
        return seqio.TaskRegistry.add(
            name,
            source=source,
            preprocessors=list(steps),
            output_features=output_features,
            **options,
        )

    def mixture(name, rates):
        mixtures.append(name)
        return seqio.MixtureRegistry.add(name, rates, default_rate=1.0)

    add.mixture = mixture
    yield add
    for name in mixtures:
        seqio.MixtureRegistry.remove(name)
    for name in tasks:
        seqio.TaskRegistry.remove(name)


@pytest.fixture
def folders_as_before():
    """Restores where seqio and its tasks look for data sets of TFDS, and for caches."""
    caches = list(seqio.get_global_cache_dirs())
    yield
    seqio.set_global_cache_dirs(caches)
    seqio.set_tfds_data_dir_override(None)
    for task in map(seqio.TaskRegistry.get, seqio.TaskRegistry.names()):
        task._cache_dir, task._stats = None, {}
        if isinstance(task.source, seqio.TfdsDataSource):
            task.source.tfds_dataset.override_data_dir(None)


def lines(path, *splits):
    """A source of lines of text; the same for all splits, by default `train`."""
    return seqio.TextLineDataSource(dict.fromkeys(splits or ("train",), str(path)))


def text_of(numbers):
    """A line for each number."""
    return "".join(f"{n}\n" for n in numbers)


def records(path, *splits):
    """A source of tf.Examples with a 'number'; the same for all splits, by default `train`."""
    described = {"number": tf.io.FixedLenFeature([], tf.int64)}
    return seqio.TFExampleDataSource(dict.fromkeys(splits or ("train",), str(path)), described)


def write_records(path, rows):
    """Writes tf.Examples, each with lists of integers by name."""
    with tf.io.TFRecordWriter(str(path)) as file:
        for row in rows:
            lists = {name: tf.train.Int64List(value=ids) for name, ids in row.items()}
            feature = {name: tf.train.Feature(int64_list=ids) for name, ids in lists.items()}
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            file.write(example.SerializeToString())


def config_of(name, length=1, **options):
    """Inputs and targets have the same length."""
    return DataConfig(name, {"inputs": length, "targets": length}, **options)


def task_examples(task, num_streams=1, *, length=1, seed=0, shuffle=True):
    """The training examples of a task."""
    options = {"random_seed": seed, "shuffle_train_examples": shuffle}
    config = config_of(task.name, length, data_streams=num_streams, **options)
    return TaskExamples(task, config, STACKS)


def epochs_of(task, stream, count):
    """The numbers that a stream reads in its first epochs, a list for each."""
    found = [[] for _ in range(count)]
    for example, cursor in task.read(stream, Cursor()):
        if cursor.epoch >= count:  # a part of few lines may be empty
            return found
        found[cursor.epoch].append(int(example["inputs"][0]))


def validation(config: DataConfig) -> OpenedTasks:
    """The tasks of a config, opened at their validation split."""
    return open_tasks(dataclasses.replace(config, split="validation"))


def assert_same(one, other):
    """Checks that two batches have the same arrays."""
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def assert_both_end(name, message):
    """Checks that training and evaluation on a task end with a message, after its split."""
    for split, read in (
        ("train", lambda opened: next(TrainBatches(opened, STACKS, 1000))),
        ("validation", lambda opened: list(eval_batches(opened, STACKS, 1000))),
    ):
        with pytest.raises(UserError, match=f"^{name}, split {split!r}: {message}") as error:
            read(open_tasks(config_of(name, 64, split=split)))
        assert "\n" not in str(error.value)


def in_full(feature, value=None):
    """A record in the schema of a data set of TFDS, with nothing in the fields that it lacks."""
    if isinstance(feature, tfds.features.FeaturesDict):
        return {name: in_full(inner, (value or {}).get(name)) for name, inner in feature.items()}
    if value is not None:
        return value
    if isinstance(feature, tfds.features.Sequence):
        return []
    return "" if isinstance(feature, tfds.features.Text) else 0


def prepare(folder, name, config, version, records, num_shards=None):
    """Writes a data set in the schema of TFDS's, as TFDS prepares it; `records`: by split."""
    features = tfds.builder(f"{name}/{config}").info.features
    tfds.dataset_builders.AdhocBuilder(
        name=name,
        config=config,
        version=version,
        features=features,
        split_datasets={
            split: [(number, in_full(features, record)) for number, record in enumerate(some)]
            for split, some in records.items()
        },
        data_dir=folder,
    ).download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=num_shards))
