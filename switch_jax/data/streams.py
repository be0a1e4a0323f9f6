"""Endless examples that can be taken up anywhere: a run's data as independent streams.

The examples of a source are dealt out to units, which are few files or parts of one; in each epoch
a permutation deals the units out to the streams. Within a unit, a block of consecutive source
examples is preprocessed and shuffled by itself, with noise of its own. So a place in a stream is
four numbers, and to go on from it costs reading over part of a unit and preprocessing one block,
however far the run has come.
"""

import functools
import itertools
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import seqio
import tensorflow as tf

from switch_jax.data.graphs import in_blocks
from switch_jax.data.rows import Example, rows
from switch_jax.data.sources import elements, no_example, open_source, source_of
from switch_jax.errors import UserError

BLOCK = 512  # source examples
_MOST_UNITS = 256  # of several files each where a source has more
_DRAWS = 1024  # tasks of a mixture that are drawn at once
_EMPTY_EPOCHS = 20  # in a row, after which a stream gives up
_OPEN_UNITS = 16  # whose sources are kept
_PASSES = 16  # over a small source that are prepared at once: to begin one takes TensorFlow 0.3 s


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


class _Unit(NamedTuple):
    """The `number`-th part of what a stream reads in an epoch; `source`: (group, part) of files."""

    epoch: int
    number: int
    source: tuple[int, int]


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
        self._source_of = functools.lru_cache(_OPEN_UNITS)(self._open)

    # Only when the task is first drawn, since a mixture may have a hundred of them in a bucket.
    @functools.cached_property
    def _source(self) -> seqio.DataSource:
        return source_of(self._task, self._split, self._cached)

    @functools.cached_property
    def _groups(self) -> int:
        return min(len(self._source.list_shards(self._split)), _MOST_UNITS)

    @functools.cached_property
    def _parts(self) -> int:
        """Parts of each group of files, so that no stream goes without."""
        few = self._groups < self._num_streams
        return self._num_streams // math.gcd(self._groups, self._num_streams) if few else 1

    def read(self, stream: int, cursor: Cursor) -> Iterator[tuple[Example, Cursor]]:
        """The stream's examples from a place on, without end, each with the place after it.

        Raises:
          UserError: there is none in many epochs, or the source cannot be read.
        """
        epoch, unit, first = cursor.epoch, cursor.unit, (cursor.block, cursor.example)
        found, ahead = epoch, 1
        # Of several streams each gets another share in the next epoch.
        empty = 2 if self._num_streams == 1 else self._parts + _EMPTY_EPOCHS
        for source, same in itertools.groupby(self._units(stream, epoch, unit), lambda u: u.source):
            while (units := list(itertools.islice(same, ahead))) and units[0].epoch < found + empty:
                for number, place, features in self._examples(source, units, first[0]):
                    if number or place >= first:
                        found = units[number].epoch
                        yield features, Cursor(found, units[number].number, place[0], place[1] + 1)
                        ahead = _PASSES
                first = (0, 0)
            if units:
                break
        told = no_example(self._task.name, self._split, self._lengths)
        if self._num_streams > 1:
            told = (
                f"stream {stream} of {self._num_streams} finds no example of {self._task.name} in "
                f"its share of {self._groups} files: set DATA_STREAMS lower; or else {told}"
            )
        raise UserError(told)

    def _units(self, stream: int, first: int, unit: int) -> Iterator[_Unit]:
        """What the stream reads from a unit of an epoch on, epoch after epoch."""
        for epoch in itertools.count(first):
            units = np.arange(self._groups * self._parts)
            if self._shuffle:
                units = np.random.default_rng((*self._seed, epoch)).permutation(units)
            mine = units[stream :: self._num_streams].tolist()
            for number in range(unit, len(mine)):
                # The parts move on, or else a stream could get an empty one in every epoch.
                group, part = divmod(mine[number], self._parts)
                yield _Unit(epoch, number, (group, (part + epoch) % self._parts))
            unit = 0

    def _examples(
        self, source: tuple[int, int], units: Sequence[_Unit], block: int
    ) -> Iterator[tuple[int, tuple[int, int], Example]]:
        """(Which unit, (block, example), features) of units with one source, from a block on."""
        entropy = [(*self._seed, unit.epoch, *source) for unit in units]
        seeds = [int(np.random.SeedSequence(numbers).generate_state(1)[0]) for numbers in entropy]
        graph = in_blocks(self._task, self._lengths, self._cached, self._shuffle, BLOCK)
        first = tf.constant(block, tf.int64)
        passes = tf.data.Dataset.from_tensor_slices(np.array(seeds, np.int64))
        dataset = graph(self._source_of(*source), first, passes)
        files = slice(source[0], None, self._groups)
        for number, block, example, features in elements(
            dataset, self._task, self._split, self._cached, files
        ):
            yield int(number), (int(block), int(example)), features

    def _open(self, group: int, part: int) -> tf.data.Dataset:
        shard = seqio.ShardInfo(group, self._groups) if self._groups > 1 else None
        source = open_source(self._source, self._split, shard)
        return source.shard(self._parts, part) if self._parts > 1 else source


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
