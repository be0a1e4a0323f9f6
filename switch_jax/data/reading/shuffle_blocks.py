"""Blocks of a task's source examples: what is preprocessed and shuffled together.

Files that can be cut (see `sources.source_files`) are read in chunks: a permutation orders the
chunks of a group of files, and each block has the next few of them. A block can then be read
without the ones before it.

Other files are read from their beginning. Runs of consecutive examples are shuffled in a window,
and each block has the next examples. Starting at a later block means reading all before it.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np

from switch_jax.data.reading.compression import whole_copies_here
from switch_jax.data.reading.epoch_order import FILES_PER_GROUP, EpochOrder, Unit
from switch_jax.data.reading.file_chunks import Chunks
from switch_jax.data.reading.read_ahead import read_ahead
from switch_jax.data.reading.sources import Reader, SourceFiles, in_memory
from switch_jax.utils.tensorflow_setup import tf

_BLOCK_SIZE = 512  # examples of a block of files that are not cut
_RUN_LENGTH, _WINDOW_RUNS = 32, 256  # examples of a run, and runs that are shuffled at a time
# The location (epoch, unit, block), and the seed of the unit.
_LOCATION_AND_SEED = (tf.TensorSpec([3], tf.int64), tf.TensorSpec([], tf.int64))


class Blocks(Protocol):
    """How units are divided into blocks.

    `signature` has types and shapes of the elements of `inputs`; `to_blocks` is the graph from a
    data set of these to one of (location, seed, block): int64 [3] epoch, unit and block; an int64;
    and a data set of source examples.
    """

    signature: tuple[tf.TensorSpec, ...]
    to_blocks: Any

    def inputs(self, units: Iterable[tuple[Unit, int]]) -> Iterator[tuple[Unit, tuple]]:
        """What `to_blocks` needs for some units, with the unit; OSError or UserError: a bad file.

        Each unit comes with the first block that is read, and may be taken before it is needed.
        """


class ChunkBlocks(Blocks):
    """Blocks of the chunks of files."""

    signature = (*_LOCATION_AND_SEED, tf.TensorSpec([], tf.string))

    def __init__(self, source: SourceFiles, order: EpochOrder, shuffle: bool) -> None:
        """`shuffle`: permute the chunks of a group; otherwise they keep their order."""
        self._source, self._order, self._shuffle = source, order, shuffle
        self._chunks = functools.cache(self._cut_group)
        self.to_blocks = _chunk_graph(source.read)

    def _cut_group(self, group: int) -> Chunks:
        format, files = self._source.format, self._source.files[self._order.files_of(group)]
        assert format is not None
        return format.cut(files, self._order.parts_of(group))

    def inputs(self, units: Iterable[tuple[Unit, int]]) -> Iterator[tuple[Unit, tuple]]:
        """For each block its location, the unit's seed, and a file in TensorFlow's memory."""
        for (unit, block), ram_file in in_memory(read_ahead(self._planned(units))):
            location = np.array([unit.epoch, unit.index, block])
            yield unit, (location, self._order.unit_seed(unit), ram_file)

    def _planned(
        self, units: Iterable[tuple[Unit, int]]
    ) -> Iterator[tuple[tuple[Unit, int], list[Callable[[], bytes]]]]:
        """Each block, as a unit and an index, and what reads its chunks."""
        for unit, first_block in units:
            chunks = self._chunks(unit.group)
            blocks = chunks.blocks(self._order.chunks_of(unit, len(chunks), self._shuffle))
            for block in range(first_block, len(blocks)):
                yield (unit, block), chunks.reads(blocks[block])


@functools.cache  # tasks that one function reads share their graph
def _chunk_graph(read: Reader) -> Any:
    """`ChunkBlocks.to_blocks` for files that `read` reads."""

    def to_block(location: tf.Tensor, seed: tf.Tensor, ram_file: tf.Tensor) -> tuple:
        return location, _block_seed(seed, location[2]), read(ram_file)

    return tf.function(lambda inputs: inputs.map(to_block), autograph=False)


class SequentialBlocks(Blocks):
    """Blocks of files that are read from their beginning."""

    signature = (
        *_LOCATION_AND_SEED,
        tf.TensorSpec([2], tf.int64),
        *(tf.TensorSpec([None], dtype) for dtype in (tf.string, tf.int64, tf.int64)),
    )

    def __init__(self, source: SourceFiles, order: EpochOrder, shuffle: bool) -> None:
        """`shuffle`: shuffle runs of examples in a window; otherwise they keep their order."""
        self._source, self._order = source, order
        self.to_blocks = _sequential_graph(source.read, shuffle, _BLOCK_SIZE)

    def inputs(self, units: Iterable[tuple[Unit, int]]) -> Iterator[tuple[Unit, tuple]]:
        """The first block's location, seed, [parts of the group, part], and its `FileSlice`s."""
        for unit, first_block in units:
            files = self._source.files[self._order.files_of(unit.group)]
            paths, skips, takes = zip(*files, strict=True)
            location = np.array([unit.epoch, unit.index, first_block])
            parts = np.array([self._order.parts_of(unit.group), unit.part])
            with whole_copies_here(paths) as here:
                yield unit, (location, self._order.unit_seed(unit), parts, here, skips, takes)


@functools.cache
def _sequential_graph(read: Reader, shuffle: bool, block_size: int) -> Any:
    """`SequentialBlocks.to_blocks` for files that `read` reads."""

    def blocks_of_unit(
        location: tf.Tensor,
        seed: tf.Tensor,
        parts: tf.Tensor,
        paths: tf.Tensor,
        skips: tf.Tensor,
        takes: tf.Tensor,
    ) -> tf.data.Dataset:
        files = tf.data.Dataset.from_tensor_slices((paths, skips, takes))
        examples = files.interleave(
            lambda path, skip, take: read(path).skip(skip).take(take),
            cycle_length=FILES_PER_GROUP,
            block_length=FILES_PER_GROUP,
        ).shard(*tf.unstack(parts))
        if shuffle:
            # A window of examples that are dictionaries is a dictionary of data sets.
            runs = examples.window(_RUN_LENGTH).shuffle(_WINDOW_RUNS, seed=seed)
            examples = runs.flat_map(lambda run: tf.data.Dataset.zip(run))

        def to_block(index: tf.Tensor, window: Any) -> tuple:
            block_location = tf.concat([location[:2], index[None]], 0)
            return block_location, _block_seed(seed, index), tf.data.Dataset.zip(window)

        blocks = examples.window(block_size).enumerate().skip(location[2]).map(to_block)
        # An empty block at the end shows that the unit was read, even if it has no examples.
        empty = tf.data.Dataset.range(1).map(lambda _: (location, seed, examples.take(0)))
        return blocks.concatenate(empty)

    return tf.function(lambda inputs: inputs.flat_map(blocks_of_unit), autograph=False)


def _block_seed(seed: tf.Tensor, block: tf.Tensor) -> tf.Tensor:
    return tf.random.stateless_uniform([], tf.stack([seed, block]), 0, 2**31 - 1, tf.int64)
