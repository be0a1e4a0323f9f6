"""Graphs that preprocess examples, traced once for all tasks that preprocess alike.

To trace a task's steps takes longer than to read a thousand examples, and the tasks of a large
mixture differ in their sources alone. So the source is an argument of the graph.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import seqio
import tensorflow as tf

_GRAPHS: dict[Hashable, Any] = {}
_FINDING, _TRACING = threading.Lock(), threading.Lock()


def alike(task: seqio.Task) -> Hashable:
    """The same for tasks with the same steps and features, while one of them is there."""
    steps = (
        type(step) if isinstance(step, seqio.CacheDatasetPlaceholder) else step
        for step in task.preprocessors
    )
    features = (
        (name, type(feature), *map(id, vars(feature).values()))
        for name, feature in task.output_features.items()
    )
    return (*map(id, steps), *features, task.shuffle_buffer_size)


def one_pass(task: seqio.Task, lengths: Mapping[str, int], cached: bool, seed: int) -> Any:
    """The graph of examples in the order of their source.

    Args:
      task: its steps; none of its source.
      lengths: tokens, by feature; what is longer is cut off.
      cached: the source is a cache, which has the first steps behind it.
      seed: of the noise.

    Returns:
      A function from a data set of the source's examples to one of the task's, with all features.
    """
    return _shared(_one_pass, task, lengths, cached, seed)


def in_blocks(
    task: seqio.Task, lengths: Mapping[str, int], cached: bool, shuffle: bool, block: int
) -> Any:
    """The graph of blocks of consecutive examples, each shuffled by itself, with its own noise.

    Args:
      task, lengths, cached: see `one_pass`.
      shuffle: shuffle the examples of a block, as far as the task allows.
      block: source examples in a block.

    Returns:
      A function of a data set of the source's examples, the first block (int64) and a data set of
      seeds (int64, one for each pass over the source) to a data set of (pass, block, number in it,
      example), the example with the features of `lengths`. Passes after the first begin with block
      0.
    """
    return _shared(_in_blocks, task, lengths, cached, shuffle, block)


def _shared(
    make: Callable[..., Any], task: seqio.Task, lengths: Mapping[str, int], *options: Hashable
) -> Any:
    key = (make, alike(task), *sorted(lengths.items()), *options)
    with _FINDING:
        if key not in _GRAPHS:  # it keeps its task, so that no other object gets an id in the key
            _GRAPHS[key] = tf.function(make(task, dict(lengths), *options), autograph=False)
        return _GRAPHS[key]


def _one_pass(task: seqio.Task, lengths: dict[str, int], cached: bool, seed: int) -> Any:
    def examples(source: tf.data.Dataset) -> tf.data.Dataset:
        dataset = _preprocessed(task, source, lengths, cached, seed)
        dataset = task._trim_output_features(task._validate_preprocessing(dataset), lengths)
        return dataset.prefetch(tf.data.AUTOTUNE).with_options(_options())

    return examples


def _in_blocks(
    task: seqio.Task, lengths: dict[str, int], cached: bool, shuffle: bool, size: int
) -> Any:
    features = {name: task.output_features[name] for name in lengths}

    def of_block(
        number: tf.Tensor, seed: tf.Tensor, block: tf.Tensor, window: Any
    ) -> tf.data.Dataset:
        block_seed = tf.random.stateless_uniform(
            [], tf.stack([seed, block]), 0, 2**31 - 1, tf.int64
        )
        # A window of dictionaries is a dictionary of data sets.
        dataset = tf.data.Dataset.zip(window)
        with _noise_of(block_seed):
            dataset = _preprocessed(task, dataset, lengths, cached, 0)
        dataset = seqio.utils.trim_dataset(dataset, lengths, features)
        dataset = dataset.map(lambda example: {name: example[name] for name in features})
        if shuffle and task.shuffle_buffer_size:
            dataset = dataset.shuffle(task.shuffle_buffer_size, seed=block_seed)
        return dataset.enumerate().map(lambda place, example: (number, block, place, example))

    def passes(
        source: tf.data.Dataset, first: tf.Tensor, seeds: tf.data.Dataset
    ) -> tf.data.Dataset:
        def one(number: tf.Tensor, seed: tf.Tensor) -> tf.data.Dataset:
            start = tf.where(number == 0, first, 0)
            windows = source.skip(start * size).window(size).enumerate(start)
            return windows.flat_map(functools.partial(of_block, number, seed))

        dataset = seeds.enumerate().flat_map(one)
        return dataset.prefetch(tf.data.AUTOTUNE).with_options(_options())

    return passes


def _preprocessed(
    task: seqio.Task, dataset: tf.data.Dataset, lengths: dict[str, int], cached: bool, seed: int
) -> tf.data.Dataset:
    if not cached:
        dataset = task.preprocess_precache(dataset, seed=seed)
    return task.preprocess_postcache(dataset, lengths, seed=seed)


def _options() -> tf.data.Options:
    options = tf.data.Options()
    # At its end, a data set that tunes itself waits seconds for the thread that does so.
    options.autotune.enabled = False
    return options


@contextlib.contextmanager
def _noise_of(block_seed: tf.Tensor) -> Iterator[None]:
    """Within, what seqio's preprocessors draw also depends on a number of the graph.

    They take their seeds from `tf.data.Dataset.random`, seeded by a number of Python's that is the
    same whenever a graph is run: all blocks would be masked alike. Other threads see no change.
    """
    _TRACING.acquire()  # two at a time would put back each other's function
    own, thread = tf.data.Dataset.__dict__["random"], threading.get_ident()

    def of_block(*args: Any, **kwargs: Any) -> tf.data.Dataset:
        numbers = own.__func__(*args, **kwargs)
        if threading.get_ident() != thread:
            return numbers
        return numbers.map(lambda number: tf.bitwise.bitwise_xor(number, block_seed))

    tf.data.Dataset.random = staticmethod(of_block)
    try:
        yield
    finally:
        tf.data.Dataset.random = own
        _TRACING.release()
