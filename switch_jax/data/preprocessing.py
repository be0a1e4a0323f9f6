"""Preprocessing graphs, traced once for all tasks with the same preprocessing.

Tracing takes longer than reading a thousand examples, so sources are arguments of the graph.
"""

import functools
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from switch_jax.data.reading import seqio_internals
from switch_jax.data.span_corruption.span_masking import Example, SpanMasking, span_masking
from switch_jax.utils.tensorflow_setup import seqio, tf

_GRAPHS: dict[Hashable, Any] = {}
# One thread makes and traces graphs at a time: `tf.data.Dataset.random`, which is replaced
# meanwhile, and the next seed, which seqio counts, are globals of the process.
_LOCK = threading.RLock()
_SHUFFLE_BUFFER = 2**14  # examples; a block usually has fewer
_ROWS_AT_ONCE = 128  # that are masked together
_BATCHES_AHEAD = 4  # batches of rows; TensorFlow itself may read far more ahead, which takes memory


def preprocessing_key(task: seqio.Task) -> Hashable:
    """Equal for tasks that have the same steps and features, as long as one of them exists.

    It has the ids of objects, since seqio's vocabularies have no hash.
    """
    steps = (
        type(step) if isinstance(step, seqio.CacheDatasetPlaceholder) else step
        for step in task.preprocessors
    )
    features = (
        (name, type(feature), *map(id, vars(feature).values()))
        for name, feature in task.output_features.items()
    )
    return (*map(id, steps), *features, task.shuffle_buffer_size)


def _shared(make: Callable[..., Any]) -> Callable[..., Any]:
    """`make`, called once for all tasks with the same preprocessing."""

    @functools.wraps(make)
    def shared(task: seqio.Task, lengths: Mapping[str, int], *options: Hashable) -> Any:
        key = (make, preprocessing_key(task), *sorted(lengths.items()), *options)
        with _LOCK:
            # The graph keeps its task alive: no other object can get an id that is in the key.
            if key not in _GRAPHS:
                _GRAPHS[key] = make(task, dict(lengths), *options)
            return _GRAPHS[key]

    return shared


@_shared
def ordered_graph(task: seqio.Task, lengths: dict[str, int], cached: bool, seed: int) -> Any:
    """The graph that preprocesses a source's examples in their order by the task's steps.

    It takes and gives a data set; the examples have all their features, cut off to `lengths`. Of
    a `cached` source the steps before the placeholder are done. `seed` is of random steps.
    """

    def preprocess(source: tf.data.Dataset) -> tf.data.Dataset:
        dataset = _apply_steps(task, source, lengths, cached, seed)
        dataset = seqio_internals.validate_and_trim(task, dataset, lengths)
        return dataset.prefetch(tf.data.AUTOTUNE).with_options(_options())

    return tf.function(preprocess, autograph=False)


class BlockGraph(NamedTuple):
    """A graph that preprocesses blocks, and what is left to do with its elements.

    Attributes:
      graph: from a data set of (location, seed, block) to one whose elements `examples` takes. The
        location, int64 [3], is passed through; the seed is an int64, the block a data set.
      masking: how the rows of the elements are masked; None: the elements are examples.
    """

    graph: Any
    masking: SpanMasking | None

    def examples(self, elements: Iterator[Any]) -> Iterator[tuple[np.ndarray, int, Example]]:
        """Location, index in the preprocessed block, and example with the features of `lengths`.

        Each block ends with the index -1 and an example to be left out.
        """
        if self.masking is None:
            yield from elements
            return
        for location, indices, rows in elements:
            examples = self.masking.examples(rows)
            for index, example in zip(indices.tolist(), examples, strict=True):
                yield location, index, example


@_shared
def block_graph(
    task: seqio.Task, lengths: dict[str, int], cached: bool, shuffle: bool
) -> BlockGraph:
    """The graph that preprocesses blocks of a source's examples, each with its own random numbers.

    `shuffle` shuffles within each block, if the task allows it; for the others see `ordered_graph`.
    """
    features = {name: task.output_features[name] for name in lengths}
    masking = span_masking(task, lengths)
    steps = task
    if masking is not None:  # in the place of the last two steps
        steps = task.replace(preprocessors=[*task.preprocessors[:-2], masking.rows])

    def preprocess_block(
        location: tf.Tensor, seed: tf.Tensor, block: tf.data.Dataset
    ) -> tf.data.Dataset:
        with _LOCK, seqio_internals.random_by_block(seed):
            dataset = _apply_steps(steps, block, lengths, cached, 0)
        if masking is None:
            dataset = seqio.utils.trim_dataset(dataset, lengths, features)
            dataset = dataset.map(lambda example: {n: example[n] for n in features if n in example})
        if shuffle and task.shuffle_buffer_size:
            dataset = dataset.shuffle(_SHUFFLE_BUFFER, seed=seed)
        end = tf.data.Dataset.from_tensors(
            (tf.constant(-1, tf.int64), _empty_example(dataset.element_spec))
        )
        indexed = dataset.enumerate().concatenate(end)
        if masking is not None:
            indexed = indexed.padded_batch(_ROWS_AT_ONCE)
        return indexed.map(lambda index, ex: (location, index, ex))

    def preprocess(blocks: tf.data.Dataset) -> tf.data.Dataset:
        ahead = tf.data.AUTOTUNE if masking is None else _BATCHES_AHEAD
        return blocks.flat_map(preprocess_block).prefetch(ahead).with_options(_options())

    return BlockGraph(tf.function(preprocess, autograph=False), masking)


def _empty_example(spec: Mapping[str, tf.TensorSpec]) -> dict[str, tf.Tensor]:
    return {name: tf.zeros([size or 0 for size in of.shape], of.dtype) for name, of in spec.items()}


def _apply_steps(
    task: seqio.Task, dataset: tf.data.Dataset, lengths: dict[str, int], cached: bool, seed: int
) -> tf.data.Dataset:
    with _LOCK:
        if not cached:
            dataset = task.preprocess_precache(dataset, seed=seed)
        return task.preprocess_postcache(dataset, lengths, seed=seed)


def _options() -> tf.data.Options:
    options = tf.data.Options()
    # With autotuning, the end of a data set waits for seconds until the tuning thread stops.
    options.autotune.enabled = False
    # They take longer than opening the data set, and change nothing in its nested ones.
    options.experimental_optimization.apply_default_optimizations = False
    return options
