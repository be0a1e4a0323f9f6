"""Training batches: the packed examples of a task or mixture, without end."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from switch_jax.config import DataConfig
from switch_jax.config.stack import StackConfig
from switch_jax.data.catalogue.configured_tasks import OpenedTasks
from switch_jax.data.catalogue.registry import mixing_rates
from switch_jax.data.packing import Batch, Example, empty_batch, pack_rows, write_row
from switch_jax.data.reading.position import Cursor, Position, StreamPosition
from switch_jax.data.task_examples import TaskExamples

_DRAWS_AT_ONCE = 1024


class TrainBatches:
    """The global batches of a run, without end; they do not depend on the hosts and devices.

    A batch is a dictionary with names as in T5X. For each stack of the model it has the tokens that
    the stack reads and their segments, as encoder_input_tokens and encoder_segment_ids, int32
    [B, L]; for the last one also the tokens that it predicts and their weights in the loss, as
    decoder_target_tokens, int32 [B, L], and decoder_loss_weights, float32 [B, L]. Segments number
    the examples of a row from 1; 0 is padding. Stream i of K gives rows i B / K to (i + 1) B / K. A
    host reads only the streams whose rows it needs; the other rows are padding.
    """

    def __init__(
        self,
        opened: OpenedTasks,
        stacks: Sequence[StackConfig],
        batch_size: int,
        position: Position | None = None,
        needed_rows: Sequence[int] | None = None,
    ) -> None:
        """Sets up the streams; their files are opened by the first `next`.

        `stacks` are those of the model. `position` is where an earlier iteration was, None the
        beginning. `needed_rows` of each batch are made, None all.
        """
        config = opened.config
        self._config, self._stacks, self._batch_size = config, stacks, batch_size
        self._rows = batch_size // config.data_streams
        needed = range(batch_size) if needed_rows is None else needed_rows
        here = sorted({row // self._rows for row in needed})
        tasks = [TaskExamples(task, config, stacks) for task in opened]
        rates = mixing_rates(config.mixture_or_task_name, opened.tasks)
        self._names = opened.names
        self._position = position or Position(0, {})
        self._streams = {
            i: _rows_of_stream(
                stacks, tasks, rates, config, i, *self._position.stream(i, self._names)
            )
            for i in here
        }
        self._threads = ThreadPoolExecutor(min(len(here), os.cpu_count() or 1), "stream")

    def __iter__(self) -> "TrainBatches":
        return self

    def __next__(self) -> tuple[Batch, Position]:
        """The next batch, and the position after it; UserError where a task gives no example."""
        lengths = self._config.task_feature_lengths
        batch = empty_batch(self._stacks, self._batch_size, lengths)

        def fill(stream: int) -> StreamPosition:
            for row in range(stream * self._rows, (stream + 1) * self._rows):
                examples, draws, cursors = next(self._streams[stream])
                write_row(self._stacks, batch, row, examples)
            return StreamPosition(draws, dict(zip(self._names, cursors, strict=True)))

        streams = dict(zip(self._streams, self._threads.map(fill, self._streams), strict=True))
        self._position = Position(self._position.batches + 1, streams)
        return batch, self._position


def _rows_of_stream(
    stacks: Sequence[StackConfig],
    tasks: Sequence[TaskExamples],
    rates: Sequence[float],
    config: DataConfig,
    index: int,
    draws: int,
    cursors: Sequence[Cursor],
) -> Iterator[tuple[list[Example], int, Sequence[Cursor]]]:
    """The examples of each row of stream `index` without end, with the position after the row.

    It starts after `draws` examples, of all tasks, at the stream's cursor in each.
    """
    cursors = list(cursors)
    mixed = _mixed(tasks, rates, config.random_seed, index, draws, cursors)
    for row in pack_rows(stacks, mixed, config.task_feature_lengths, config.pack):
        draws += len(row)
        for _, (task, cursor) in row:
            cursors[task] = cursor
        yield [example for example, _ in row], draws, cursors


def _mixed(
    tasks: Sequence[TaskExamples],
    rates: Sequence[float],
    seed: int,
    stream: int,
    draws: int,
    cursors: Sequence[Cursor],
) -> Iterator[tuple[Example, tuple[int, Cursor]]]:
    """Yields examples at the tasks' rates, each with its task's index and the position after it."""
    readers = [task.read(stream, cursor) for task, cursor in zip(tasks, cursors, strict=True)]
    probabilities = np.asarray(rates) / np.sum(rates)
    chunk, skip = divmod(draws, _DRAWS_AT_ONCE)
    while True:
        rng = np.random.default_rng((seed, stream, chunk))
        for task in rng.choice(len(readers), _DRAWS_AT_ONCE, p=probabilities)[skip:]:
            example, cursor = next(readers[task])
            yield example, (int(task), cursor)
        chunk, skip = chunk + 1, 0
