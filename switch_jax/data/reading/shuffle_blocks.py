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

from switch_jax.data.reading.compression import checked_local_copies
from switch_jax.data.reading.epoch_order import FILES_PER_GROUP, EpochOrder, Shard
from switch_jax.data.reading.file_chunks import Chunks
from switch_jax.data.reading.read_ahead import read_ahead
from switch_jax.data.reading.sources import Reader, SourceFiles, as_ram_files
from switch_jax.storage import local_copies
from switch_jax.utils.tensorflow_setup import tf

_BLOCK_SIZE = 512  # examples of a block of files that are not cut
_RUN_LENGTH, _WINDOW_RUNS = 32, 256  # examples of a run, and runs that are shuffled at a time
# The location (epoch, shard, block), and the seed of the shard.
_LOCATION_AND_SEED = (tf.TensorSpec([3], tf.int64), tf.TensorSpec([], tf.int64))


class Blocks(Protocol):
    """A way to divide shards into blocks.

    `signature` has types and shapes of the elements of `inputs`; `to_blocks` is the graph from a
    data set of these to one of (location, seed, block): int64 [3] epoch, shard and block; an int64;
    and a data set of source examples.
    """

    signature: tuple[tf.TensorSpec, ...]
    to_blocks: Any

    def inputs(self, shards: Iterable[tuple[Shard, int]]) -> Iterator[tuple[Shard, tuple]]:
        """Yields each shard with an input of `to_blocks`; OSError or UserError: a file is bad.

        Each of `shards` comes with the first block to read; they may be read some blocks ahead.
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
        format, files = self._source.format, self._source.files[self._order.files_in(group)]
        assert format is not None
        return format.cut(files, self._order.parts_in(group))

    def inputs(self, shards: Iterable[tuple[Shard, int]]) -> Iterator[tuple[Shard, tuple]]:
        """Yields each block's location, its shard's seed, and a file in TensorFlow's memory."""
        for (shard, block), ram_file in as_ram_files(read_ahead(self._planned(shards))):
            location = np.array([shard.epoch, shard.index, block])
            yield shard, (location, self._order.shard_seed(shard), ram_file)

    def _planned(
        self, shards: Iterable[tuple[Shard, int]]
    ) -> Iterator[tuple[tuple[Shard, int], list[Callable[[], bytes]]]]:
        """Yields each block, as a shard and an index, and the calls that read its chunks."""
        for shard, first_block in shards:
            chunks = self._chunks(shard.group)
            blocks = chunks.blocks(self._order.chunk_order(shard, len(chunks), self._shuffle))
            for block in range(first_block, len(blocks)):
                yield (shard, block), chunks.reads(blocks[block])


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

    def inputs(self, shards: Iterable[tuple[Shard, int]]) -> Iterator[tuple[Shard, tuple]]:
        """Yields the first block's location, seed, [parts of the group, part], and `FileSlice`s."""
        for shard, first_block in shards:
            files = self._source.files[self._order.files_in(shard.group)]
            paths, skips, takes = zip(*files, strict=True)
            location = np.array([shard.epoch, shard.index, first_block])
            parts = np.array([self._order.parts_in(shard.group), shard.part])
            # Each stream with a part of a file decompresses all of it; one of them checks it.
            copies = local_copies if shard.part else checked_local_copies
            with copies(paths) as here:
                yield shard, (location, self._order.shard_seed(shard), parts, here, skips, takes)


@functools.cache
def _sequential_graph(read: Reader, shuffle: bool, block_size: int) -> Any:
    """`SequentialBlocks.to_blocks` for files that `read` reads."""

    def shard_blocks(
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
        # An empty block at the end shows that the shard was read, even if it has no examples.
        empty = tf.data.Dataset.range(1).map(lambda _: (location, seed, examples.take(0)))
        return blocks.concatenate(empty)

    return tf.function(lambda inputs: inputs.flat_map(shard_blocks), autograph=False)


def _block_seed(seed: tf.Tensor, block: tf.Tensor) -> tf.Tensor:
    return tf.random.stateless_uniform([], tf.stack([seed, block]), 0, 2**31 - 1, tf.int64)
