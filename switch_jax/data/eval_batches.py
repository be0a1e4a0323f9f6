"""Evaluation batches: one pass over a split, in a fixed order."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

from switch_jax.data.batch import Batch, Example, empty_batch, write_row
from switch_jax.data.checks import check_data
from switch_jax.data.config import DataConfig
from switch_jax.data.configured_tasks import in_order, tasks_to_read
from switch_jax.data.packing import rows
from switch_jax.data.sources import no_example
from switch_jax.errors import UserError


def eval_batches(
    config: DataConfig, batch_size: int, num_batches: int | None = None, split: str = "validation"
) -> Iterator[Batch]:
    """One pass in a fixed order; the last batch is filled up with rows of zeros.

    The masked spans do not depend on `config.seed`. A mixture is read task by task.

    Args:
      config: what to read; its split and its shuffle are not used.
      batch_size: rows B of every batch.
      num_batches: stop after so many; None reads the whole split.
      split: split to read.

    Returns:
      Dictionaries as those of `TrainBatches`.

    Raises:
      UserError: as `TrainBatches` does.
    """
    if batch_size <= 0:
        raise UserError(f"batch size {batch_size} is not positive")
    config = replace(config, split=split)
    check_data(config)
    return _filled_up(_eval_rows(config), batch_size, num_batches, config)


def _filled_up(
    all_rows: Iterator[list[tuple[Example, None]]],
    batch_size: int,
    num_batches: int | None,
    config: DataConfig,
) -> Iterator[Batch]:
    for batch_number in itertools.count() if num_batches is None else range(num_batches):
        some = list(itertools.islice(all_rows, batch_size))
        batch = empty_batch(batch_size, config.task_feature_lengths)
        for number, row in enumerate(some):
            write_row(batch, number, [example for example, _ in row])
        if some:
            yield batch
        elif batch_number == 0:
            lengths = dict(config.task_feature_lengths)
            raise UserError(no_example(config.mixture_or_task_name, config.split, lengths))
        if len(some) < batch_size:
            return


def _eval_rows(config: DataConfig) -> Iterator[list[tuple[Example, None]]]:
    """The rows of one pass over each task, one after the other."""
    for task in tasks_to_read(config):
        examples = ((example, None) for example in in_order(task, config))
        yield from rows(examples, config.task_feature_lengths, config.pack)


def eval_tasks(config: DataConfig, split: str = "validation") -> list[str]:
    """Names of the tasks to evaluate one by one: those that have the split.

    Raises:
      UserError: none has it.
    """
    return [task.name for task in tasks_to_read(replace(config, split=split))]
