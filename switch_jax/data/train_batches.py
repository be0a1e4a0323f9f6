"""Training batches: the packed examples of a task or mixture, without end."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from switch_jax.data.batch import Batch, empty_batch, write_row
from switch_jax.data.checks import check_streams
from switch_jax.data.configured_tasks import OpenedTasks
from switch_jax.data.mixed_stream import MixedStream
from switch_jax.data.position import Position, StreamPosition
from switch_jax.data.registry import mixing_rates
from switch_jax.data.task_examples import TaskExamples


class TrainBatches:
    """The global batches of a run, without end; they do not depend on the hosts and devices.

    A batch is a dictionary of encoder_input_tokens, encoder_segment_ids int32 [B, L_inputs];
    decoder_input_tokens, decoder_target_tokens, decoder_segment_ids int32 [B, L_targets];
    decoder_loss_weights float32 [B, L_targets]. Segments number the examples of a row from 1; 0 is
    padding. Stream i of K gives rows i B / K to (i + 1) B / K. A host reads only the streams whose
    rows it needs; the other rows are padding.
    """

    def __init__(
        self,
        opened: OpenedTasks,
        batch_size: int,
        position: Position | None = None,
        needed_rows: Sequence[int] | None = None,
    ) -> None:
        """Sets up the streams; their files are opened by the first `next`.

        Args:
          opened: what to read.
          batch_size: rows B of a batch.
          position: where an earlier iteration was; None = the beginning.
          needed_rows: numbers of the rows that are needed here; None = all.

        Raises:
          UserError: the batch does not divide over the streams. Reading raises it for a file that
            cannot be read, and for a task of a mixture that gives no example.
        """
        config = opened.config
        check_streams(config, batch_size)
        self._config, self._batch_size = config, batch_size
        self._rows = batch_size // config.data_streams
        needed = range(batch_size) if needed_rows is None else needed_rows
        here = sorted({row // self._rows for row in needed})
        tasks = [TaskExamples(task, config) for task in opened]
        rates = mixing_rates(config.mixture_or_task_name, opened.tasks)
        start = position or Position(0, {})
        self._names = opened.names
        self._batches = start.batches
        self._streams = {
            i: MixedStream(tasks, rates, i, config.random_seed, *start.stream(i, self._names))
            for i in here
        }
        self._iterators = {
            i: stream.rows(config.task_feature_lengths, config.pack)
            for i, stream in self._streams.items()
        }
        self._threads = ThreadPoolExecutor(min(len(here), os.cpu_count() or 1), "stream")

    def __iter__(self) -> "TrainBatches":
        return self

    def __next__(self) -> tuple[Batch, Position]:
        """The next batch, and the position after it."""
        batch = empty_batch(self._batch_size, self._config.task_feature_lengths)

        def fill(stream: int) -> None:
            for row in range(stream * self._rows, (stream + 1) * self._rows):
                write_row(batch, row, next(self._iterators[stream]))

        list(self._threads.map(fill, self._iterators))
        self._batches += 1
        positions = {
            i: StreamPosition(stream.draws, dict(zip(self._names, stream.cursors, strict=True)))
            for i, stream in self._streams.items()
        }
        return batch, Position(self._batches, positions)
