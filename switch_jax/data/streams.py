"""Endless examples that can be taken up anywhere: a run's data as independent streams.

The files of a source make up groups of few. In each epoch a permutation deals the groups out to the
streams, or parts of each where there are fewer groups than streams. The files of a group are cut
into pieces (`pieces.py`), another permutation orders these, and each next few of them are a block,
which is preprocessed and shuffled by itself, with noise of its own. So a place in a stream is four
numbers, and to go on from it costs preprocessing one block, however far the run has come.

Files that cannot be cut (`sources.readable`) are read in their order through a window, in which
runs of few examples are shuffled; to go on costs reading over what lies before.
"""

import dataclasses
import functools
import itertools
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import seqio
import tensorflow as tf

from switch_jax.data.batch import Example
from switch_jax.data.packing import has_tokens, rows
from switch_jax.data.pieces import Extent, Pieces
from switch_jax.data.preprocessing import check_noise, in_blocks
from switch_jax.data.sources import (
    File,
    FileWatch,
    Readable,
    elements,
    no_example,
    readable,
    source_of,
)
from switch_jax.errors import UserError, storage_error

ORDER = 2  # of all that decides the order of the examples; a place counts in its own order alone
_GROUP = 16  # files, whose pieces come mixed
_BLOCK = 512  # examples of a block of files that are not cut
_RUN, _RUNS = 32, 256  # examples that stay together in such files, and runs shuffled at a time
_MOST_GROUPS = 256  # of files that are read in order
_DRAWS = 1024  # tasks of a mixture that are drawn at once
_EMPTY_EPOCHS = 20  # in a row, after which a stream gives up
_NAMES = itertools.count()
_SPOT_SPEC = (tf.TensorSpec([3], tf.int64), tf.TensorSpec([], tf.int64))  # place, seed
_PIECES_SPEC = (*_SPOT_SPEC, tf.TensorSpec([], tf.string))
_WHOLE_SPEC = (
    *_SPOT_SPEC,
    tf.TensorSpec([], tf.int64),
    *(tf.TensorSpec([None], kind) for kind in (tf.string, tf.int64, tf.int64)),
)


class Cursor(NamedTuple):
    """A place among the examples of one task in one stream: where the next one is.

    Attributes:
      epoch: passes over the task that are done.
      unit: number of the group, or part of one, among those that the stream gets in this epoch.
      block: in the unit.
      example: in the preprocessed block; may lie past its end.
    """

    epoch: int = 0
    unit: int = 0
    block: int = 0
    example: int = 0


class _Unit(NamedTuple):
    """The `number`-th of what a stream reads in an epoch: a group of files, or part of one."""

    epoch: int
    number: int
    group: int
    part: int


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
        self._watch = FileWatch(task.name)
        self._permute = shuffle and bool(task.shuffle_buffer_size)
        self._pieces_of = functools.cache(self._cut)

    # Only when the task is first drawn, since a mixture may have a hundred of them in a bucket.
    @functools.cached_property
    def _readable(self) -> Readable:
        return readable(source_of(self._task, self._split, self._cached), self._split)

    @functools.cached_property
    def _groups(self) -> int:
        files = len(self._readable.files)
        if not self._shuffle:
            return min(files, _MOST_GROUPS)
        return max(-(-files // _GROUP), min(files, self._num_streams))

    @functools.cached_property
    def _parts(self) -> int:
        """Parts of each group of files, so that no stream goes without."""
        few = self._groups < self._num_streams
        return self._num_streams // math.gcd(self._groups, self._num_streams) if few else 1

    def _files(self, group: int) -> Sequence[File]:
        return self._readable.files[group :: self._groups]

    def read(self, stream: int, cursor: Cursor) -> Iterator[tuple[Example, Cursor]]:
        """The stream's examples from a place on, without end, each with the place after it.

        Raises:
          UserError: there is none in many epochs, or the source cannot be read.
        """
        # Of several streams each gets another share in the next epoch.
        empty = 2 if self._num_streams == 1 else self._parts + _EMPTY_EPOCHS
        found, start = cursor.epoch, tuple(cursor)
        for spot, number, features in self._examples(stream, cursor):
            epoch, unit, block = spot.tolist()
            if number < 0 and epoch >= found + empty:
                break
            if (
                number >= 0
                and (epoch, unit, block, number) >= start
                and has_tokens(features, self._lengths)
            ):
                found = epoch
                yield features, Cursor(epoch, unit, block, int(number) + 1)
        told = no_example(self._task.name, self._split, self._lengths)
        if self._num_streams > 1:
            told = (
                f"stream {stream} of {self._num_streams} finds no example of {self._task.name} in "
                f"its share of {self._groups} files: set DATA_STREAMS lower; or else {told}"
            )
        raise UserError(told)

    def _examples(self, stream: int, cursor: Cursor) -> Iterator[Any]:
        """What `in_blocks` gives of the stream's blocks, from the one of a place on."""
        check_noise()
        reading = _Reading([], None)
        kind = _PIECES_SPEC if self._readable.cut else _WHOLE_SPEC
        portions = tf.data.Dataset.from_generator(
            lambda: self._portions(stream, cursor, reading), output_signature=kind
        )
        graph = in_blocks(self._task, self._lengths, self._cached, self._shuffle)
        dataset = graph(self._blocks(portions))
        yield from elements(dataset, self._task, self._split, self._cached, lambda: reading.files)
        assert reading.error is not None  # or else it has no end
        raise reading.error

    def _portions(self, stream: int, cursor: Cursor, reading: "_Reading") -> Iterator[Any]:
        """What `_blocks` takes, without end; runs in a thread of TensorFlow's."""
        try:
            for unit in self._units(stream, cursor.epoch, cursor.unit):
                reading.files = [file.path for file in self._files(unit.group) if file.path]
                numbers = (*self._seed, unit.epoch, unit.group, unit.part)
                seed = np.int64(np.random.SeedSequence(numbers).generate_state(1)[0])
                first = cursor.block if (unit.epoch, unit.number) == cursor[:2] else 0
                yield from (self._cut_up if self._readable.cut else self._whole)(unit, first, seed)
        except OSError as error:
            what = f"{self._task.name}, split {self._split!r}: cannot be read"
            reading.error = storage_error(f"{what}: {error.filename}; {error.strerror}", error)
        except Exception as error:  # TensorFlow would make it one of its own
            reading.error = error

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
                yield _Unit(epoch, number, group, (part + epoch) % self._parts)
            unit = 0

    def _cut_up(self, unit: _Unit, first: int, seed: np.int64) -> Iterator[Any]:
        """The blocks of a unit whose files are cut, each as a file in TensorFlow's memory."""
        pieces = self._pieces_of(unit.group)
        order = np.arange(len(pieces))
        if self._permute:
            numbers = (*self._seed, unit.epoch, unit.group)
            order = np.random.default_rng(numbers).permutation(order)
        blocks = pieces.blocks(order[unit.part :: self._parts])
        name = f"ram://switch_jax/{next(_NAMES)}"
        for block, chosen in enumerate(blocks[first:], first):
            for file in set(map(pieces.file, chosen)):
                self._watch.size(file)
            with tf.io.gfile.GFile(name, "wb") as file:
                file.write(b"".join(map(pieces.read, chosen)))
            try:
                yield np.array([unit.epoch, unit.number, block]), seed, name
            finally:  # its examples were read, or nobody wants them
                tf.io.gfile.remove(name)

    def _whole(self, unit: _Unit, first: int, seed: np.int64) -> Iterator[Any]:
        """A unit whose files are not cut."""
        files = self._files(unit.group)
        for file in files:
            if file.path:
                self._watch.size(file.path)
        paths, skips, takes = zip(*files, strict=True)
        yield np.array([unit.epoch, unit.number, first]), seed, unit.part, paths, skips, takes

    @functools.cached_property
    def _blocks(self) -> Any:
        """The graph of what `in_blocks` takes; of one task, for all its streams."""
        of = self._block if self._readable.cut else self._blocks_of_whole
        merge = tf.data.Dataset.map if self._readable.cut else tf.data.Dataset.flat_map
        return tf.function(lambda portions: merge(portions, of), autograph=False)

    def _block(self, spot: tf.Tensor, seed: tf.Tensor, path: tf.Tensor) -> Any:
        return spot, _block_seed(seed, spot[2]), self._readable.examples(path)

    def _blocks_of_whole(
        self,
        spot: tf.Tensor,
        seed: tf.Tensor,
        part: tf.Tensor,
        paths: tf.Tensor,
        skips: tf.Tensor,
        takes: tf.Tensor,
    ) -> tf.data.Dataset:
        files = tf.data.Dataset.from_tensor_slices((paths, skips, takes))
        source = files.interleave(
            lambda path, skip, take: self._readable.examples(path).skip(skip).take(take),
            cycle_length=_GROUP,
            block_length=_GROUP,
        )
        if self._parts > 1:
            source = source.shard(self._parts, part)
        if self._permute:
            # A window of dictionaries is a dictionary of data sets.
            runs = source.window(_RUN).shuffle(_RUNS, seed=seed)
            source = runs.flat_map(lambda run: tf.data.Dataset.zip(run))

        def block(number: tf.Tensor, window: Any) -> Any:
            place = tf.concat([spot[:2], number[None]], 0)
            return place, _block_seed(seed, number), tf.data.Dataset.zip(window)

        blocks = source.window(_BLOCK).enumerate().skip(spot[2]).map(block)
        # A unit without examples has a block all the same, which says that it was read.
        last = tf.data.Dataset.range(1).map(lambda _: (spot, seed, source.take(0)))
        return blocks.concatenate(last)

    def _cut(self, group: int) -> Pieces:
        """The pieces of a group of files."""
        cut, extents = self._readable.cut, []
        assert cut is not None
        for path, skip, take in self._files(group):
            size = self._watch.size(path)
            begin = min(cut.offset(path, skip), size) if skip else 0
            end = min(cut.offset(path, skip + take), size) if take >= 0 else size
            extents.append(Extent(path, begin, end))
        return Pieces(extents, cut, self._parts)


@dataclasses.dataclass
class _Reading:
    """What a stream reads of a task at the moment, and the error that has ended it."""

    files: Sequence[str]
    error: Exception | None


def _block_seed(seed: tf.Tensor, block: tf.Tensor) -> tf.Tensor:
    return tf.random.stateless_uniform([], tf.stack([seed, block]), 0, 2**31 - 1, tf.int64)


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
