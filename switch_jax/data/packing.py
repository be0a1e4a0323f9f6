"""The arrays of a batch, and which examples share a row of it; loads no TensorFlow."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from switch_jax.config.stack import StackConfig

Example = Mapping[str, np.ndarray]
Batch = dict[str, np.ndarray]
Tag = TypeVar("Tag")
_NO_TOKENS = np.zeros(0, np.int32)


def empty_batch(
    stacks: Sequence[StackConfig], batch_size: int, lengths: Mapping[str, int]
) -> Batch:
    """A batch of padding; `train_batches.TrainBatches` describes its arrays.

    `lengths` are tokens in a row, by feature.
    """
    batch: Batch = {}
    for stack in stacks:
        shape = batch_size, stack.length(lengths)
        for name in (stack.input_tokens, stack.segment_ids):
            batch[name] = np.zeros(shape, np.int32)
    batch[stacks[-1].target_tokens] = np.zeros(shape, np.int32)  # of the last stack's shape
    batch[stacks[-1].loss_weights] = np.zeros(shape, np.float32)
    return batch


def write_row(
    stacks: Sequence[StackConfig], batch: Batch, row: int, examples: Sequence[Example]
) -> None:
    """Writes examples side by side into a row of `batch` that is all padding.

    Of each example a stack reads the features that it has, int32 [L] each, one after the other;
    what does not fit is cut off. The last stack reads them shifted right, with 0 as the first
    token, and the last of its features is in the loss.
    """
    last = stacks[-1]
    for stack in stacks:
        tokens_name = last.target_tokens if stack is last else stack.input_tokens
        tokens, segments = batch[tokens_name][row], batch[stack.segment_ids][row]
        start = 0
        for segment, example in enumerate(examples, start=1):
            parts = [example.get(name, _NO_TOKENS) for name in stack.features]
            ids = np.concatenate(parts)[: len(tokens) - start]
            stop = start + len(ids)
            tokens[start:stop], segments[start:stop] = ids, segment
            if stack is last:
                batch[last.input_tokens][row, start + 1 : stop] = ids[:-1]
                predicted = start + sum(map(len, parts[:-1]))
                batch[last.loss_weights][row, predicted:stop] = 1
            start = stop


def prompt_batch(
    stacks: Sequence[StackConfig], lengths: Mapping[str, int], examples: Sequence[Example]
) -> tuple[Batch, Batch]:
    """Tokens and segments of what is there before the first target is decoded, by stack, int32.

    Of the last stack they are prompts, the features before the targets: they end at the right, and
    it has no arrays where it reads the targets alone. `examples` are of the rows, {} for padding;
    `lengths` are tokens by feature, to which the prompts of each stack are cut off together.
    """
    tokens, segments = Batch(), Batch()
    for stack in stacks:
        features = stack.features[:-1] if stack is stacks[-1] else stack.features
        if not features:
            continue
        length = sum(lengths.get(name, 0) for name in features)
        for arrays in (tokens, segments):
            arrays[stack.name] = np.zeros((len(examples), length), np.int32)
        for row, example in enumerate(examples):
            parts = [example.get(name, _NO_TOKENS) for name in features]
            ids = np.concatenate(parts)[:length]
            at = slice(length - len(ids), None) if stack is stacks[-1] else slice(len(ids))
            tokens[stack.name][row, at], segments[stack.name][row, at] = ids, 1
    return tokens, segments


def pack_rows(
    stacks: Sequence[StackConfig],
    examples: Iterable[tuple[Example, Tag]],
    lengths: Mapping[str, int],
    pack: bool,
) -> Iterator[list[tuple[Example, Tag]]]:
    """Groups examples into rows in which they fit, in their given order; without `pack` one a row.

    `examples` are pairs of an example, with a token in 'inputs' or 'targets', and what stays with
    it. `lengths` are tokens in a row, by feature; longer examples count as cut off. A row ends
    before the first example that does not fit into it in every stack, so at most one is read ahead.
    """
    row: list[tuple[Example, Tag]] = []
    room = rooms = [stack.length(lengths) for stack in stacks]
    for example, tag in examples:
        sizes = [
            sum(min(len(example.get(name, ())), lengths.get(name, 0)) for name in stack.features)
            for stack in stacks
        ]
        full = any(size > left for size, left in zip(sizes, room, strict=True))
        if row and (full or not pack):
            yield row
            row, room = [], rooms
        row.append((example, tag))
        room = [left - size for size, left in zip(sizes, room, strict=True)]
    if row:
        yield row
