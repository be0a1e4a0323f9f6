"""The training examples of one task as independent endless streams, each resumable anywhere.

In each epoch the files are dealt out to the streams as shards, divided into blocks (`epoch_order`,
`shuffle_blocks`). Each block is preprocessed and shuffled by itself, with random numbers of its
location. So a position in a stream is four numbers, and resuming from it costs one block; files
that cannot be cut must also be read again from their beginning.
"""

import functools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from switch_jax.config import DataConfig
from switch_jax.config.stack import StackConfig
from switch_jax.data.packing import Example
from switch_jax.data.preprocessing import block_graph
from switch_jax.data.reading.epoch_order import EpochOrder
from switch_jax.data.reading.examples import has_tokens, no_examples, read_examples
from switch_jax.data.reading.position import Cursor
from switch_jax.data.reading.shuffle_blocks import Blocks, ChunkBlocks, SequentialBlocks
from switch_jax.data.reading.sources import SourceFiles, data_source, source_files
from switch_jax.utils.errors import storage_error
from switch_jax.utils.tensorflow_setup import seqio, tf

_MAX_EMPTY_EPOCHS = 20  # in a row


class TaskExamples:
    """The training examples of one task, in streams; opens nothing before the first is read."""

    def __init__(self, task: seqio.Task, config: DataConfig, stacks: Sequence[StackConfig]) -> None:
        self._task, self._config, self._stacks = task, config, stacks
        self._cached = config.use_cached_tasks and task.supports_caching

    @functools.cached_property
    def _source(self) -> SourceFiles:
        split = self._config.split
        return source_files(data_source(self._task, split, self._cached), split)

    @functools.cached_property
    def _order(self) -> EpochOrder:
        config, num_files = self._config, len(self._source.files)
        seed = (config.random_seed, zlib.crc32(self._task.name.encode()))
        return EpochOrder(num_files, config.data_streams, seed, config.shuffle_train_examples)

    @functools.cached_property
    def _blocks(self) -> Blocks:
        blocks = ChunkBlocks if self._source.format else SequentialBlocks
        shuffle = self._config.shuffle_train_examples and bool(self._task.shuffle_buffer_size)
        return blocks(self._source, self._order, shuffle)

    def read(self, stream: int, cursor: Cursor) -> Iterator[tuple[Example, Cursor]]:
        """The examples of a stream from `cursor` on, without end, and the position after each."""
        # With several streams, a stream gets another share of the examples in the next epoch.
        num_streams = self._config.data_streams
        max_empty = 2 if num_streams == 1 else self._order.num_parts + _MAX_EMPTY_EPOCHS
        last_epoch, start = cursor.epoch, tuple(cursor)
        for location, index, example in self._preprocessed(stream, cursor):
            epoch, shard, block = location.tolist()
            if index < 0 and epoch >= last_epoch + max_empty:
                break
            here = (epoch, shard, block, index)
            if index >= 0 and here >= start and has_tokens(example, self._stacks):
                last_epoch = epoch
                yield example, Cursor(epoch, shard, block, int(index) + 1)
        share = f", in the share of stream {stream} of {num_streams}," if num_streams > 1 else ""
        raise no_examples(f"{self._task.name}{share}", self._config)

    def _preprocessed(self, stream: int, cursor: Cursor) -> Iterator[Any]:
        """Yields `BlockGraph.examples` of the stream, starting with the cursor's block."""
        state = _ReadState()
        inputs = tf.data.Dataset.from_generator(
            lambda: self._block_inputs(stream, cursor, state),
            output_signature=self._blocks.signature,
        )
        config = self._config
        preprocess = block_graph(
            self._task, config.task_feature_lengths, self._cached, config.shuffle_train_examples
        )
        dataset = preprocess.graph(self._blocks.to_blocks(inputs))
        elements = read_examples(
            dataset, self._task, config.split, self._cached, lambda: state.files
        )
        yield from preprocess.examples(elements)
        assert state.error is not None  # nothing else ends the data set
        raise state.error

    def _block_inputs(self, stream: int, cursor: Cursor, state: "_ReadState") -> Iterator[tuple]:
        """Yields the inputs of the stream's blocks without end; runs in a thread of TensorFlow."""
        shards = (
            (shard, cursor.block if (shard.epoch, shard.index) == cursor[:2] else 0)
            for shard in self._order.shards(stream, cursor.epoch, cursor.shard)
        )
        try:
            for shard, inputs in self._blocks.inputs(shards):
                files = self._source.files[self._order.files_in(shard.group)]
                state.files = [file.path for file in files if file.path]
                yield inputs
        except OSError as error:
            where = f"{self._task.name}, split {self._config.split!r}: {error.filename}"
            state.error = storage_error(f"{where}: {error.strerror}", error)
        except Exception as error:  # raised here, it would become an error of TensorFlow
            state.error = error


@dataclass
class _ReadState:
    """The files that a stream is reading, and the error that has ended its data set."""

    files: Sequence[str] = field(default_factory=list)
    error: Exception | None = None
