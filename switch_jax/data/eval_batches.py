"""Evaluation batches: one pass over a split, in a fixed order."""

import itertools
from collections.abc import Iterator, Sequence

from switch_jax.config.stack import StackConfig
from switch_jax.data.catalogue.configured_tasks import OpenedTasks, ordered_examples
from switch_jax.data.packing import Batch, empty_batch, pack_rows, write_row
from switch_jax.data.reading.examples import no_examples


def eval_batches(
    opened: OpenedTasks,
    stacks: Sequence[StackConfig],
    batch_size: int,
    num_batches: int | None = None,
) -> Iterator[Batch]:
    """Yields batches as `TrainBatches` does, in one pass; the last is filled up with padding.

    The masked spans do not depend on the config's seed, nor the order on its shuffle. A mixture is
    read task by task, to its end or up to `num_batches`. Raises UserError if there is no example at
    these lengths.
    """
    config = opened.config
    lengths, is_empty = config.task_feature_lengths, True
    all_rows = itertools.chain.from_iterable(
        pack_rows(
            stacks,
            ((example, None) for example in ordered_examples(task, config, stacks)),
            lengths,
            config.pack,
        )
        for task in opened
    )
    batches = iter(lambda: list(itertools.islice(all_rows, batch_size)), [])
    for rows in itertools.islice(batches, num_batches):
        batch, is_empty = empty_batch(stacks, batch_size, lengths), False
        for index, row in enumerate(rows):
            write_row(stacks, batch, index, [example for example, _ in row])
        yield batch
    if is_empty:
        raise no_examples(config.mixture_or_task_name, config)
