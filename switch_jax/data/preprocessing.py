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

from switch_jax.data import seqio_private
from switch_jax.errors import UserError

_GRAPHS: dict[Hashable, Any] = {}
_FINDING, _TRACING = threading.Lock(), threading.Lock()
_SHUFFLED = 2**14  # examples of a block, or the first of it


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


def in_blocks(task: seqio.Task, lengths: Mapping[str, int], cached: bool, shuffle: bool) -> Any:
    """The graph of blocks of source examples, each shuffled by itself, with its own noise.

    Args:
      task, lengths, cached: see `one_pass`.
      shuffle: shuffle the examples of a block, as far as the task allows.

    Returns:
      A function of a data set of (spot, seed, block), which are int64 [3], the place of the block,
      which nothing here looks at, an int64 and a data set of source examples, to a data set of
      (spot, number in the block, example), the example with the features of `lengths`. After the
      last example of a block comes one with number -1 and no tokens.
    """
    return _shared(_in_blocks, task, lengths, cached, shuffle)


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
        dataset = seqio_private.checked_and_cut(task, dataset, lengths)
        return dataset.prefetch(tf.data.AUTOTUNE).with_options(_options())

    return examples


def _in_blocks(task: seqio.Task, lengths: dict[str, int], cached: bool, shuffle: bool) -> Any:
    features = {name: task.output_features[name] for name in lengths}

    def of_block(spot: tf.Tensor, seed: tf.Tensor, block: tf.data.Dataset) -> tf.data.Dataset:
        with _noise_of(seed):
            dataset = _preprocessed(task, block, lengths, cached, 0)
        dataset = seqio.utils.trim_dataset(dataset, lengths, features)
        dataset = dataset.map(lambda example: {name: example[name] for name in features})
        if shuffle and task.shuffle_buffer_size:
            dataset = dataset.shuffle(_SHUFFLED, seed=seed)
        end = tf.data.Dataset.from_tensors(
            (tf.constant(-1, tf.int64), _nothing_of(dataset.element_spec))
        )
        return dataset.enumerate().concatenate(end).map(lambda number, ex: (spot, number, ex))

    def examples(blocks: tf.data.Dataset) -> tf.data.Dataset:
        return blocks.flat_map(of_block).prefetch(tf.data.AUTOTUNE).with_options(_options())

    return examples


def _nothing_of(spec: Mapping[str, tf.TensorSpec]) -> dict[str, tf.Tensor]:
    """An example of these features without tokens."""
    return {name: tf.zeros([size or 0 for size in of.shape], of.dtype) for name, of in spec.items()}


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


@functools.cache
def check_noise() -> None:
    """Checks, once, that two blocks get different noise, and one the same again.

    Raises:
      UserError: a release of TensorFlow or seqio draws its seeds elsewhere.
    """

    @seqio.map_over_dataset(num_seeds=1)
    def drawn(_: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return seed

    def of_block(number: tf.Tensor) -> tf.data.Dataset:
        with _noise_of(number), seqio.map_seed_manager(0):
            return drawn(tf.data.Dataset.range(1))

    blocks = tf.data.Dataset.from_tensor_slices(tf.constant([5, 6, 5], tf.int64))
    first, other, again = map(str, blocks.flat_map(of_block).as_numpy_iterator())
    if first == other or first != again:
        raise UserError(
            f"with TensorFlow {tf.__version__} and seqio {seqio.__version__} the blocks of the "
            "data cannot be masked each in its own way: seqio.map_over_dataset does not take its "
            "seeds from tf.data.Dataset.random any more; install the versions in requirements.txt"
        )


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
