"""What is used of seqio that has no public name: all of it is here, and nowhere else.

A release of seqio may move any of it; tests/data/test_seqio_private.py then says what, and in which
release.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf


def cached_source(task: seqio.Task, split: str) -> seqio.DataSource:
    """What reads the task's cache."""
    return task._get_cached_source(split)


def is_cache(source: seqio.DataSource) -> bool:
    """Whether a source reads a cache that seqio has written."""
    return type(source) is seqio.dataset_providers._CachedDataSource


def reader(source: seqio.FileDataSource) -> Callable[[Any], tf.data.Dataset]:
    """From the path of one of the source's files to its examples."""
    return source._reader


def header_lines(source: seqio.TextLineDataSource) -> int:
    """Lines at the beginning of each file that are no examples."""
    return source._skip_header_lines


def file_pattern(source: seqio.FileDataSource, split: str) -> Any:
    """The patterns that name the files of a split."""
    return source._split_to_filepattern[split]


def tfds_split(loader: seqio.LazyTfdsLoader, split: str) -> str:
    """TFDS's name of a task's split."""
    return loader._map_split(split)


def tfds_builder(loader: seqio.LazyTfdsLoader, split: str) -> Any:
    """TFDS's builder of the data set that a split is of."""
    return loader._get_builder(split)


def tfds_decoders(loader: seqio.LazyTfdsLoader) -> Any:
    """How the features are decoded where the task says so; None: as TFDS does."""
    return loader._decoders


def tfds_data_dir() -> str | None:
    """The folder that --tfds_data_dir names."""
    return seqio.utils._TFDS_DATA_DIR_OVERRIDE


def preprocess(
    task: seqio.Task, dataset: tf.data.Dataset, steps: Sequence[Callable[..., Any]]
) -> tf.data.Dataset:
    """The data set after some of the task's steps."""
    return task._preprocess_dataset(dataset, steps)


def checked_and_cut(
    task: seqio.Task, dataset: tf.data.Dataset, lengths: Mapping[str, int]
) -> tf.data.Dataset:
    """The preprocessed examples, with the features that the task says, no longer than `lengths`."""
    return task._trim_output_features(task._validate_preprocessing(dataset), lengths)
