"""The arrays of a batch, and which examples share a row of it; loads no TensorFlow."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from switch_jax.config.stack import StackConfig

Example = Mapping[str, np.ndarray]
Batch = dict[str, np.ndarray]
Tag = TypeVar("Tag")


def empty_batch(
    stacks: Sequence[StackConfig], batch_size: int, lengths: Mapping[str, int]
) -> Batch:
    """A batch of padding; `train_batches.TrainBatches` describes its arrays.

    `lengths` are tokens in a row, by the feature that a stack reads.
    """
    batch: Batch = {}
    for stack in stacks:
        shape = batch_size, lengths[stack.feature]
        for name in (stack.input_tokens, stack.segment_ids):
            batch[name] = np.zeros(shape, np.int32)
    batch[stacks[-1].target_tokens] = np.zeros(shape, np.int32)  # of the last stack's shape
    batch[stacks[-1].loss_weights] = np.zeros(shape, np.float32)
    return batch


def write_row(
    stacks: Sequence[StackConfig], batch: Batch, row: int, examples: Sequence[Example]
) -> None:
    """Writes examples side by side into a row of `batch` that is all padding.

    Each example has the feature of each stack, int32 [L]; what does not fit is cut off. What the
    last stack reads of each example is its targets shifted right, with 0 as the first token.
    """
    last = stacks[-1]
    for stack in stacks:
        tokens_name = last.target_tokens if stack is last else stack.input_tokens
        tokens, segments = batch[tokens_name][row], batch[stack.segment_ids][row]
        start = 0
        for segment, example in enumerate(examples, start=1):
            ids = example[stack.feature][: len(tokens) - start]
            stop = start + len(ids)
            tokens[start:stop], segments[start:stop] = ids, segment
            if stack is last:
                batch[last.input_tokens][row, start + 1 : stop] = ids[:-1]
            start = stop
    batch[last.loss_weights][row] = batch[last.segment_ids][row] > 0


def pack_rows(
    examples: Iterable[tuple[Example, Tag]], lengths: Mapping[str, int], pack: bool
) -> Iterator[list[tuple[Example, Tag]]]:
    """Groups examples into rows in which they fit, in their given order; without `pack` one a row.

    `examples` are pairs of an example, with a token in 'inputs' or 'targets', and what stays with
    it. `lengths` are tokens in a row, by feature; longer examples count as cut off. A row ends
    before the first example that does not fit, so at most one is read ahead.
    """
    row: list[tuple[Example, Tag]] = []
    used = dict.fromkeys(lengths, 0)
    for example, tag in examples:
        sizes = {name: min(len(example[name]), length) for name, length in lengths.items()}
        full = any(used[name] + sizes[name] > length for name, length in lengths.items())
        if row and (full or not pack):
            yield row
            row, used = [], dict.fromkeys(lengths, 0)
        row.append((example, tag))
        used = {name: used[name] + size for name, size in sizes.items()}
    if row:
        yield row
