"""Evaluation batches: one pass over a split, in a fixed order."""

import itertools
from collections.abc import Iterator

from switch_jax.data.batch import Batch, Example, empty_batch, write_row
from switch_jax.data.configured_tasks import OpenedTasks, in_order
from switch_jax.data.packing import pack_rows
from switch_jax.data.reading import no_examples


def eval_batches(
    opened: OpenedTasks, batch_size: int, num_batches: int | None = None
) -> Iterator[Batch]:
    """One pass in a fixed order; the last batch is filled up with rows of padding.

    The masked spans do not depend on the config's seed. A mixture is read task by task.

    Args:
      opened: what to read; the config's shuffle is not used.
      batch_size: rows B of every batch.
      num_batches: number of batches to stop after; None reads the whole split.

    Returns:
      Batches like those of `TrainBatches`.

    Raises:
      UserError: a file cannot be read, or there is no example at these lengths.
    """
    all_rows = _eval_rows(opened)
    config = opened.config
    for batch_number in itertools.count() if num_batches is None else range(num_batches):
        rows = list(itertools.islice(all_rows, batch_size))
        batch = empty_batch(batch_size, config.task_feature_lengths)
        for index, row in enumerate(rows):
            write_row(batch, index, [example for example, _ in row])
        if rows:
            yield batch
        elif batch_number == 0:
            raise no_examples(config.mixture_or_task_name, config)
        if len(rows) < batch_size:
            return


def _eval_rows(opened: OpenedTasks) -> Iterator[list[tuple[Example, None]]]:
    """The rows of one pass over each task, one after the other."""
    config = opened.config
    for task in opened:
        examples = ((example, None) for example in in_order(task, config))
        yield from pack_rows(examples, config.task_feature_lengths, config.pack)
