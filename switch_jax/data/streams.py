"""Endless examples that can be taken up anywhere: a run's data as independent streams.

The examples of a source are dealt out to units, which are few files or parts of one; in each epoch
a permutation deals the units out to the streams. Within a unit, a block of consecutive source
examples is preprocessed and shuffled by itself, with noise of its own. So a place in a stream is
four numbers, and to go on from it costs reading over part of a unit and preprocessing one block,
however far the run has come.
"""

import contextlib
import functools
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import seqio
import tensorflow as tf

from switch_jax.data.rows import Example, rows
from switch_jax.errors import UserError

BLOCK = 512  # source examples
_MOST_UNITS = 256  # of several files each where a source has more
_DRAWS = 1024  # tasks of a mixture that are drawn at once
_EMPTY_EPOCHS = 20  # in a row, after which a stream gives up
_OPEN_UNITS = 16  # whose graphs are kept
_TRACING = threading.Lock()


class Cursor(NamedTuple):
    """A place among the examples of one task in one stream: where the next one is.

    Attributes:
      epoch: passes over the task that are done.
      unit: number of the unit among those that the stream gets in this epoch.
      block: in the unit.
      example: in the preprocessed block; may lie past its end.
    """

    epoch: int = 0
    unit: int = 0
    block: int = 0
    example: int = 0


class TaskExamples:
    """The preprocessed training examples of one task, dealt out to streams."""

    def __init__(
        self,
        task: seqio.Task,
        lengths: Mapping[str, int],
        *,
        split: str,
        num_streams: int,
        seed: int,
        shuffle: bool,
        use_cached: bool,
    ) -> None:
        self._task, self._lengths, self._split = task, dict(lengths), split
        self._num_streams, self._shuffle = num_streams, shuffle
        self._seed = (seed, zlib.crc32(task.name.encode()))
        self._cached = use_cached and task.supports_caching
        # The source that Task.get_dataset reads as well; seqio offers no other way to it.
        self._source = task._get_cached_source(split) if self._cached else task.source
        self._groups = min(len(self._source.list_shards(split)), _MOST_UNITS)
        # Parts of each group of files, so that no stream goes without.
        few = self._groups < num_streams
        self._parts = num_streams // np.gcd(self._groups, num_streams) if few else 1
        self._reader = functools.lru_cache(_OPEN_UNITS)(self._make_reader)

    def read(self, stream: int, cursor: Cursor) -> Iterator[tuple[Example, Cursor]]:
        """The stream's examples from a place on, without end, each with the place after it.

        Raises:
          UserError: there is none in many epochs.
        """
        epoch, unit, block, example = cursor
        found = epoch
        while epoch < found + self._parts + _EMPTY_EPOCHS:
            units = self._units(epoch, stream)
            while unit < len(units):
                first = (block, example)
                for place, features in self._unit(epoch, *units[unit], block):
                    if place >= first:
                        yield features, Cursor(epoch, unit, place[0], place[1] + 1)
                        found = epoch
                unit, block, example = unit + 1, 0, 0
            epoch, unit, block, example = epoch + 1, 0, 0, 0
        raise UserError(
            f"stream {stream} of {self._num_streams} finds no example of {self._task.name} in its "
            f"share of {self._groups} files: set DATA_STREAMS lower"
        )

    def _units(self, epoch: int, stream: int) -> list[tuple[int, int]]:
        """(Group of files, part of it) of each unit that the stream gets in this epoch."""
        units = np.arange(self._groups * self._parts)
        if self._shuffle:
            units = np.random.default_rng((*self._seed, epoch)).permutation(units)
        # The parts move on, or else a stream could get an empty one in every epoch.
        return [
            (int(u) // self._parts, (int(u) + epoch) % self._parts)
            for u in units[stream :: self._num_streams]
        ]

    def _unit(
        self, epoch: int, group: int, part: int, block: int
    ) -> Iterator[tuple[tuple[int, int], Example]]:
        """((Block, example), features) of a unit, from a block on."""
        seed = np.random.SeedSequence((*self._seed, epoch, group, part)).generate_state(1)[0]
        dataset = self._reader(group)(*(tf.constant(int(n), tf.int64) for n in (part, block, seed)))
        for block, example, features in dataset.as_numpy_iterator():
            yield (int(block), int(example)), features

    def _make_reader(self, group: int) -> Any:
        """The graph that reads a group of files, from (part, first block, seed): traced once."""
        number = tf.TensorSpec([], tf.int64)

        @functools.partial(tf.function, input_signature=[number, number, number])
        def reader(part: tf.Tensor, first_block: tf.Tensor, seed: tf.Tensor) -> tf.data.Dataset:
            shard = seqio.ShardInfo(group, self._groups) if self._groups > 1 else None
            source = self._source.get_dataset(self._split, shuffle=False, shard_info=shard)
            if self._parts > 1:
                numbered = source.enumerate().filter(lambda i, _: i % self._parts == part)
                source = numbered.map(lambda _, example: example)
            blocks = source.skip(first_block * BLOCK).window(BLOCK).enumerate(first_block)
            dataset = blocks.flat_map(functools.partial(self._block, seed))
            return dataset.prefetch(tf.data.AUTOTUNE).with_options(untuned())

        return reader

    def _block(self, seed: tf.Tensor, block: tf.Tensor, window: Any) -> tf.data.Dataset:
        """(block, number, features) of the examples that a window of source examples gives."""
        block_seed = tf.random.stateless_uniform(
            [], tf.stack([seed, block]), 0, 2**31 - 1, tf.int64
        )
        # A window of dictionaries is a dictionary of data sets.
        dataset = tf.data.Dataset.zip(window)
        with _noise_of(block_seed):
            if not self._cached:
                dataset = self._task.preprocess_precache(dataset, seed=0)
            dataset = self._task.preprocess_postcache(dataset, self._lengths, seed=0)
        features = {name: self._task.output_features[name] for name in self._lengths}
        dataset = seqio.utils.trim_dataset(dataset, self._lengths, features)
        dataset = dataset.map(lambda example: {name: example[name] for name in features})
        if self._shuffle and self._task.shuffle_buffer_size:
            dataset = dataset.shuffle(self._task.shuffle_buffer_size, seed=block_seed)
        return dataset.enumerate().map(lambda number, example: (block, number, example))


def untuned() -> tf.data.Options:
    """At its end, a data set that tunes itself waits seconds for the thread that does so."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


@contextlib.contextmanager
def _noise_of(block_seed: tf.Tensor) -> Iterator[None]:
    """Within, what seqio's preprocessors draw also depends on a number of the graph.

    They take their seeds from `tf.data.Dataset.random`, seeded by a number of Python's that is the
    same whenever a graph is run: all blocks would be masked alike. Other threads see no change.
    """
    _TRACING.acquire()  # two at a time would put back each other's function
    random, thread = tf.data.Dataset.random, threading.get_ident()

    def of_block(seed: Any) -> tf.data.Dataset:
        numbers = random(seed)
        if threading.get_ident() != thread:
            return numbers
        return numbers.map(lambda number: tf.bitwise.bitwise_xor(number, block_seed))

    tf.data.Dataset.random = of_block
    try:
        yield
    finally:
        tf.data.Dataset.random = random
        _TRACING.release()


class Stream:
    """One of the streams: tasks mixed by their rates and packed into rows."""

    def __init__(
        self,
        tasks: Sequence[TaskExamples],
        rates: Sequence[float],
        index: int,
        seed: int,
        draws: int,
        cursors: Sequence[Cursor],
    ) -> None:
        """`draws`, `cursors`: where to go on; they follow as rows are read.

        Attributes:
          draws: examples read so far, of all tasks.
          cursors: one a task.
        """
        self._tasks, self._rates = tasks, np.asarray(rates) / np.sum(rates)
        self._index, self._seed = index, seed
        self.draws, self.cursors = draws, list(cursors)

    def rows(self, lengths: Mapping[str, int], pack: bool) -> Iterator[list[Example]]:
        """The examples of each next row; `draws` and `cursors` then are those after the row."""
        for row in rows(self._mixed(), lengths, pack):
            self.draws += len(row)
            for _, (task, cursor) in row:
                self.cursors[task] = cursor
            yield [example for example, _ in row]

    def _mixed(self) -> Iterator[tuple[Example, tuple[int, Cursor]]]:
        """Each example with its task's number and the place after it there."""
        read = [
            task.read(self._index, cursor)
            for task, cursor in zip(self._tasks, self.cursors, strict=True)
        ]
        chunk, skip = divmod(self.draws, _DRAWS)
        while True:
            rng = np.random.default_rng((self._seed, self._index, chunk))
            for task in rng.choice(len(read), _DRAWS, p=self._rates)[skip:]:
                example, cursor = next(read[task])
                yield example, (int(task), cursor)
            chunk, skip = chunk + 1, 0
